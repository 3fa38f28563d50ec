# syntax=docker/dockerfile:1
# Two images: `docker build --target api .` (no torch) and `docker build --target worker .`
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/gradgauge
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY service service
COPY docs/rules docs/rules
COPY clients/python clients/python
RUN /opt/gradgauge/bin/pip install -c constraints.txt . ./clients/python

FROM build AS build-worker
# Where PyTorch's wheels come from: its CPU builds by default; empty for the package index's own.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN /opt/gradgauge/bin/pip install -c constraints.txt \
    ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[worker]'

FROM python:${PYTHON} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gradgauge \
    && install -d -o gradgauge -g gradgauge -m 0700 /var/lib/gradgauge
ENV PATH=/opt/gradgauge/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GRADGAUGE_DATA_DIR=/var/lib/gradgauge \
    GRADGAUGE_LOG_FORMAT=json
USER 10001:10001
WORKDIR /var/lib/gradgauge
# tini reaps whatever a killed worker leaves behind, and passes SIGTERM on.
ENTRYPOINT ["/usr/bin/tini", "--"]

FROM runtime AS worker
COPY --from=build-worker /opt/gradgauge /opt/gradgauge
CMD ["gradgauge", "worker"]

FROM runtime AS api
COPY --from=build /opt/gradgauge /opt/gradgauge
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=6 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
CMD ["gradgauge", "serve", "--api-only"]
