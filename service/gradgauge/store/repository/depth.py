"""How much there is to do, over all projects."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


@dataclass(frozen=True)
class Depth:
    """Jobs of one task in one state, and the age of the one created first."""

    task: str
    state: str
    jobs: int
    oldest_s: float


async def jobs(session: AsyncSession) -> list[Depth]:
    """Return how many jobs of each task wait (`todo`) and are worked on (`doing`), zeros too."""
    return [Depth(*row) for row in await session.execute(_DEPTH)]


_DEPTH = text("""
SELECT task.name, state.name, count(job.id),
       coalesce(extract(epoch FROM now() - min(event.at)), 0)::float8
  FROM (VALUES ('inspect'), ('analyse')) task (name)
 CROSS JOIN (VALUES ('todo'), ('doing')) state (name)
  LEFT JOIN procrastinate_jobs job
    ON job.queue_name = task.name AND job.status::text = state.name
  LEFT JOIN procrastinate_events event
    ON event.job_id = job.id AND event.type = 'deferred'
 GROUP BY task.name, state.name
 ORDER BY task.name, state.name
""")
