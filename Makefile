# The whole project from a fresh clone: make run, make test. Nothing outside this folder is touched,
# except by ci-deps, which installs Debian packages and says so.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)
READY := $(VENV)/.ready
# PyTorch's own index of CPU builds: make run TORCH_INDEX=https://download.pytorch.org/whl/cpu
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
THREADS := OMP_NUM_THREADS=1
# Processes that tests start read bytecode, where the environment forbids to write it too; each half
# of the tests stays with one of two workers, so that what a module sets up is set up once.
TESTING := $(THREADS) PYTHONDONTWRITEBYTECODE=
WORKERS := -n 2 --dist worksteal

ifdef DEMO
export GRADGAUGE_DEMO := $(DEMO)
endif

.PHONY: run check-examples faults openapi release-contract ops papers remedies settings test test-full lint format clean ci-deps

run: $(READY)
	$(BIN)/gradgauge serve $(if $(PORT),--port $(PORT))

check-examples: $(READY)
	$(BIN)/gradgauge check --local --profile quick examples/deep-sigmoid.yaml examples/pre-ln-transformer.onnx || [ $$? -eq 1 ]

openapi: $(READY)
	$(BIN)/python -m gradgauge.api.export clients/openapi.json
	$(BIN)/python clients/python/generate_models.py

release-contract: openapi
	cp clients/openapi.json clients/openapi-released.json

ops: $(READY)
	$(BIN)/python -m gradgauge.ops.listing docs/ops.md service/gradgauge/api/ops.json

settings: $(READY)
	$(BIN)/python -m gradgauge.cli.settings_listing docs/configuration.md

remedies: $(READY)
	$(BIN)/python -m gradgauge.remedy.listing docs/remedies.md

papers: $(READY)
	$(THREADS) $(BIN)/python -m tests.papers.table docs/theory/papers.md

test: $(READY)
	$(TESTING) $(BIN)/coverage run -m pytest $(WORKERS) -m "not slow" $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --skip-covered

test-full: $(READY)
	$(TESTING) $(BIN)/pytest $(WORKERS) $(ARGS)

faults: $(READY)
	$(THREADS) $(BIN)/python -m benchmarks.faults fleet $(ARGS)
	$(THREADS) $(BIN)/python -m benchmarks.faults service $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry service
	$(BIN)/vulture
	$(BIN)/hadolint Dockerfile
	$(BIN)/codespell README.md CHANGELOG.md CONTRIBUTING.md docs service clients tests benchmarks examples

format: $(READY)
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis out .coverage .coverage.*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

ci-deps:
	@echo "Debian packages for the browser tests: chromium (this is the only target that touches the system)"
	@command -v chromium >/dev/null && echo "chromium is there" || { apt-get update && apt-get install -y --no-install-recommends chromium; }

$(READY): pyproject.toml clients/python/pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "gradgauge needs Python 3.11 or newer: no python3 on the PATH" >&2; exit 2; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "gradgauge needs Python 3.11 or newer; $(PYTHON) is older. Try make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) lacks venv: install your system's python3-venv package" >&2; exit 2; }
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(INDEX) -e '.[worker,dev]' -e clients/python
	@touch $@
