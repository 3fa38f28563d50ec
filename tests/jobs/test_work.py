"""Jobs through a worker in this process: ends, refusals, deaths, cancellations, take-overs."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from gradgauge.jobs.outcome import Succeeded
from gradgauge.jobs.progress import LeaseLost
from gradgauge.jobs.queue import Queue
from gradgauge.jobs.work import Work
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import analyses, attempts, models, usage
from gradgauge.store.tables import FINAL_STATES
from tests.jobs.worker_process import ScriptedRunner
from tests.rows import analysis_of, new_architecture, new_model, new_project, ready_model

pytestmark = pytest.mark.anyio

queue = Queue()


@asynccontextmanager
async def working(database, blobs, settings, runner=None):
    work = Work(database, blobs, settings, runner or ScriptedRunner())
    running = asyncio.create_task(work.run())
    try:
        yield work
    finally:
        work.stop()
        await running


async def submit(database, model, **options):
    async with database.session() as session:
        made = await queue.submit_analysis(session, analysis_of(model, **options), fresh=True)
        return made.analysis.id


async def until(database, analysis_id, states=FINAL_STATES, limit_s=10):
    async with asyncio.timeout(limit_s):
        while True:
            async with database.session() as session:
                row = await analyses.get(session, DEFAULT_PROJECT, analysis_id)
            if row.state in states:
                return row
            await asyncio.sleep(0.02)


async def a_ready_model(database):
    async with database.session() as session:
        return await ready_model(session)


async def test_an_analysis_succeeds_and_its_report_is_stored(database, blobs, settings):
    model = await a_ready_model(database)
    analysis_id = await submit(database, model)
    async with working(database, blobs, settings):
        row = await until(database, analysis_id)
    assert (row.state, row.progress, row.verdict, row.deaths) == ("succeeded", 1.0, "pass", 0)
    assert "by" in json.loads(await blobs.get(row.report_key))
    async with database.session() as session:
        told = await analyses.events(session, DEFAULT_PROJECT, analysis_id)
    assert [event.state for event in told] == ["queued", "running", "running", "succeeded"]


async def test_an_architecture_reaches_the_runner_as_its_spec(database, blobs, settings):
    seen = []

    class Runner(ScriptedRunner):
        async def analyse(self, job, tell):
            seen.append(job.source.document)
            return Succeeded(b"{}")

    async with database.session() as session:
        made = await new_architecture(session, layers=[{"type": "dense"}])
        new = analyses.NewAnalysis(
            project_id=DEFAULT_PROJECT,
            name="mlp",
            options={},
            cache_key="k",
            architecture_id=made.id,
        )
        analysis_id = (await queue.submit_analysis(session, new)).analysis.id
    async with working(database, blobs, settings, Runner()):
        await until(database, analysis_id)
    assert seen == [{"layers": [{"type": "dense"}]}]


async def test_a_fault_fails_the_analysis_once(database, blobs, settings):
    analysis_id = await submit(database, await a_ready_model(database), does="refuse")
    async with working(database, blobs, settings):
        row = await until(database, analysis_id)
    assert (row.state, row.error["code"], row.attempts) == ("failed", "no_grad", 1)


async def test_three_dead_children_fail_the_analysis_and_the_next_one_runs(
    database, blobs, settings
):
    model = await a_ready_model(database)
    poison = await submit(database, model, does="die")
    after = await submit(database, model)
    async with working(database, blobs, settings):
        died, ran = await until(database, poison), await until(database, after)
    assert (died.state, died.deaths, died.attempts) == ("failed", 3, 3)
    assert died.error["code"] == "analysis_died"
    assert "3 times" in died.error["message"]
    assert "signal 9" in died.error["message"]
    assert ran.state == "succeeded"


async def test_an_inspection_makes_the_model_ready_and_releases_what_waits(
    database, blobs, settings
):
    async with database.session() as session:
        model = await new_model(session)
        await queue.submit_inspection(session, model)
    analysis_id = await submit(database, model)
    async with working(database, blobs, settings):
        row = await until(database, analysis_id)
    async with database.session() as session:
        inspected = await models.get(session, DEFAULT_PROJECT, model.id)
    assert (row.state, inspected.state) == ("succeeded", "ready")
    assert inspected.facts["warnings"] == [
        {"code": "unsorted", "message": "the graph was not sorted"}
    ]


@pytest.mark.parametrize(
    ("name", "code"), [("refuse.onnx", "truncated"), ("die.onnx", "inspection_died")]
)
async def test_a_rejected_model_fails_what_waited_for_it(database, blobs, settings, name, code):
    async with database.session() as session:
        model = await new_model(session, name=name)
        await queue.submit_inspection(session, model)
    analysis_id = await submit(database, model)
    async with working(database, blobs, settings):
        row = await until(database, analysis_id)
    async with database.session() as session:
        inspected = await models.get(session, DEFAULT_PROJECT, model.id)
    assert (inspected.state, inspected.problem["code"]) == ("rejected", code)
    assert (row.state, row.error["code"]) == ("failed", code)


async def test_facts_that_are_none_reject_the_model(database, blobs, settings):
    class Liar(ScriptedRunner):
        async def inspect(self, job):
            return Succeeded(b'{"name": 3, "ops": "many"}')

    async with database.session() as session:
        model = await new_model(session)
        await queue.submit_inspection(session, model)
    analysis_id = await submit(database, model)
    async with working(database, blobs, settings, Liar()):
        row = await until(database, analysis_id)
    assert row.error["code"] == "garbled_facts"


async def test_an_inspection_does_not_wait_behind_an_analysis(database, blobs, settings):
    busy = await submit(database, await a_ready_model(database), does=60)
    async with working(database, blobs, settings):
        await until(database, busy, {"running"})
        async with database.session() as session:
            model = await new_model(session, sha256="b" * 64)
            await queue.submit_inspection(session, model)
        waits = await submit(database, model)
        async with asyncio.timeout(30):  # the analysis takes 60 s
            state = "inspecting"
            while state == "inspecting":
                async with database.session() as session:
                    state = (await models.get(session, DEFAULT_PROJECT, model.id)).state
        assert state == "ready"
        for each in (busy, waits):
            async with database.session() as session:
                await queue.cancel(session, DEFAULT_PROJECT, each)


async def test_a_running_analysis_is_cancelled_within_two_seconds(database, blobs, settings):
    gone = asyncio.Event()

    class Runner(ScriptedRunner):
        async def analyse(self, job, tell):
            try:
                await asyncio.sleep(60)
            finally:
                gone.set()

    analysis_id = await submit(database, await a_ready_model(database))
    async with working(database, blobs, settings, Runner()):
        await until(database, analysis_id, {"running"})
        async with database.session() as session:
            await queue.cancel(session, DEFAULT_PROJECT, analysis_id)
        async with asyncio.timeout(30):  # the analysis takes 60 s
            await gone.wait()
        assert (await until(database, analysis_id)).state == "cancelled"


async def test_a_stale_token_writes_neither_progress_nor_result(database):
    model = await a_ready_model(database)
    analysis_id = await submit(database, model)
    async with database.session() as session:
        row = await analyses.get(session, DEFAULT_PROJECT, analysis_id)
        token = (await attempts.start_analysis(session, analysis_id, row.job_id)).token
    stale = "0" * 32
    async with database.session() as session:
        ended = {"state": "succeeded", "report_key": "zombie"}
        assert not await attempts.end_analysis(session, analysis_id, stale, ended)
        assert not await attempts.advance(session, analysis_id, stale, stage="x", progress=0.5)
        assert await attempts.start_analysis(session, analysis_id, row.job_id) is None
    async with database.session() as session:
        ended = {"state": "succeeded", "report_key": "mine"}
        assert await attempts.end_analysis(session, analysis_id, token, ended)
        again = {"state": "failed", "error": {}}
        assert not await attempts.end_analysis(session, analysis_id, token, again)
        row = await analyses.get(session, DEFAULT_PROJECT, analysis_id)
    assert (row.state, row.report_key) == ("succeeded", "mine")


async def test_the_result_of_a_replaced_attempt_is_refused_and_its_report_deleted(
    database, blobs, settings
):
    keys = []

    class Replaced(ScriptedRunner):
        async def analyse(self, job, tell):
            async with database.session() as session:
                row = await analyses.get(session, DEFAULT_PROJECT, job.analysis_id, lock=True)
                await attempts.end(session, row, {"state": "cancelled"})
            keys.append(f"{job.project_id}/analyses/{job.analysis_id}/{job.token}.json")
            with pytest.raises(LeaseLost):
                await tell("sampled", 0.5)
            return Succeeded(b"{}")

    analysis_id = await submit(database, await a_ready_model(database))
    async with working(database, blobs, settings, Replaced()):
        assert (await until(database, analysis_id)).state == "cancelled"
        await asyncio.sleep(0.5)
    assert len(keys) == 1
    assert not blobs.local_path(keys[0]).exists()


async def test_a_worker_told_to_stop_puts_its_job_back_without_a_death(database, blobs, settings):
    analysis_id = await submit(database, await a_ready_model(database), does=60)
    async with working(database, blobs, settings):
        await until(database, analysis_id, {"running"})
    row = await until(database, analysis_id, {"queued"}, limit_s=1)
    assert (row.deaths, row.token) == (0, None)
    async with database.session() as session:
        await queue.cancel(session, DEFAULT_PROJECT, analysis_id)


async def test_a_job_that_vanished_from_the_queue_is_written_anew(database, blobs, settings):
    analysis_id = await submit(database, await a_ready_model(database))
    async with database.session() as session:
        row = await analyses.get(session, DEFAULT_PROJECT, analysis_id)
        await attempts.close_job(session, row.job_id)
    async with working(database, blobs, settings):
        assert (await until(database, analysis_id)).state == "succeeded"


async def test_the_report_a_killed_attempt_left_is_deleted_by_the_next(database, blobs, settings):
    left, wrote = [], asyncio.Event()

    class Runner(ScriptedRunner):
        async def analyse(self, job, tell):
            if not left:
                left.append(f"{job.project_id}/analyses/{job.analysis_id}/{job.token}.json")
                await blobs.put(left[0], b"{}")
                wrote.set()
                await asyncio.sleep(60)
            return Succeeded(b"{}")

    analysis_id = await submit(database, await a_ready_model(database))
    async with working(database, blobs, settings, Runner()):
        await wrote.wait()
    async with working(database, blobs, settings, Runner()):
        row = await until(database, analysis_id)
    assert row.attempts == 2
    folder = blobs.local_path(row.report_key).parent
    assert [file.name for file in folder.iterdir()] == [row.report_key.rpartition("/")[2]]


class Counting(ScriptedRunner):
    """Knows how many analyses of each project it has run at once."""

    def __init__(self):
        self.now, self.most = {}, {}
        self.order = []

    async def analyse(self, job, tell):
        project = job.project_id
        self.order.append(project)
        self.now[project] = self.now.get(project, 0) + 1
        self.most[project] = max(self.most.get(project, 0), self.now[project])
        try:
            return await super().analyse(job, tell)
        finally:
            self.now[project] -= 1


async def test_a_project_runs_only_so_many_at_once_while_others_pass(database, blobs, settings):
    chosen = settings.model_copy(update={"quota_running": 1, "analysis_slots": 4})
    async with database.session() as session:
        greedy = await ready_model(session)
        modest = await ready_model(session, await new_project(session, "modest"))
        roomy = await ready_model(session, await new_project(session, "roomy"))
        await usage.set_quotas(session, roomy.project_id, {"running": 2})
    ids = [await submit(database, greedy, does=0.3) for _ in range(4)]
    ids += [await submit(database, roomy, does=0.3) for _ in range(4)]
    ids += [await submit(database, modest, does=0.3)]
    runner = Counting()
    async with working(database, blobs, chosen, runner):
        await all_over(database, len(ids))
    assert runner.most == {greedy.project_id: 1, modest.project_id: 1, roomy.project_id: 2}
    assert modest.project_id in runner.order[:4]


async def test_two_workers_together_keep_to_a_projects_number(database, blobs, settings):
    chosen = settings.model_copy(update={"quota_running": 2, "analysis_slots": 3})
    async with database.session() as session:
        model = await ready_model(session)
    ids = [await submit(database, model, does=0.2) for _ in range(8)]
    runner = Counting()
    async with working(database, blobs, chosen, runner), working(database, blobs, chosen, runner):
        await all_over(database, len(ids))
    assert runner.most == {model.project_id: 2}


async def all_over(database, count):
    async with asyncio.timeout(60):
        while True:
            async with database.session() as session:
                found = await session.execute(
                    text("SELECT count(*) FROM analyses WHERE state = 'succeeded'")
                )
            if found.scalar_one() == count:
                return
            await asyncio.sleep(0.05)
