"""`/metrics`: what was counted here, and how the queue stands, for Prometheus."""

from fastapi import APIRouter
from starlette.responses import Response

from gradgauge import metrics
from gradgauge.api.deps import Here, Services
from gradgauge.errors import Unavailable
from gradgauge.metrics import Gauge
from gradgauge.store.repository import attempts, depth

router = APIRouter(tags=["health"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(here: Here) -> Response:
    """Read the metrics; with keys that needs one of scope admin of the project `default`."""
    gauges = await _gauges(here)
    return Response(metrics.exposition(gauges), media_type=metrics.CONTENT_TYPE)


async def _gauges(here: Services) -> list[Gauge]:
    try:
        async with here.database.autocommit() as session:
            found = await depth.jobs(session)
            living = await attempts.living_workers(session, here.settings.stall_s)
    except Unavailable:
        return [Gauge("gradgauge_database_up", "Whether the database answers.", (), [((), 0)])]
    return [
        Gauge("gradgauge_database_up", "Whether the database answers.", (), [((), 1)]),
        Gauge(
            "gradgauge_queue_jobs",
            "Jobs in the queue: todo waits, doing is worked on.",
            ("task", "state"),
            [((each.task, each.state), each.jobs) for each in found],
        ),
        Gauge(
            "gradgauge_queue_oldest_seconds",
            "Age of the job that has waited longest.",
            ("task",),
            [((each.task,), each.oldest_s) for each in found if each.state == "todo"],
        ),
        Gauge(
            "gradgauge_queue_workers",
            "Registered takers of jobs, one for each task of a worker process.",
            (),
            [((), living)],
        ),
    ]
