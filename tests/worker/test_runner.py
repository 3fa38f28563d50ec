"""Jobs in real confined children: laid out, watched, cancelled, and judged by how they end."""

import asyncio
import fcntl
import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from gradgauge.jobs.outcome import AnalysisJob, Died, Failed, InspectionJob, Spec, Succeeded, Upload
from gradgauge.jobs.progress import LeaseLost
from gradgauge.schema.report import Report
from gradgauge.schema.resources import ModelFacts
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.worker.confined import Outcome
from gradgauge.worker.forks import Zygote, ZygoteLost
from gradgauge.worker.runner import SHARES, ConfinedRunner, overall
from tests.service import QUICK, SLOW, SPEC, children, gone, task, until

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = (EXAMPLES / "pre-ln-transformer.onnx").read_bytes()


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="module")
def zygote():
    started = Zygote()
    started.start()
    yield started
    started.close()


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path)


@pytest.fixture
def blobs(settings):
    return BlobStore.open(settings)


@pytest.fixture
def runner(zygote, blobs, settings):
    return ConfinedRunner(zygote, blobs, settings, require=())


async def upload(blobs, content, name="net.onnx"):
    await blobs.put("prj/models/mdl", content)
    return Upload("mdl", name, "prj/models/mdl", "0" * 64, len(content))


def analysis(source, **options):
    return AnalysisJob("ana", "prj", "token", source, options)


async def deaf(_stage, _progress):
    pass


async def test_an_inspection_tells_facts(runner, blobs, settings):
    outcome = await runner.inspect(InspectionJob("prj", "t", await upload(blobs, MODEL)))
    facts = ModelFacts.told(json.loads(outcome.result))
    assert (facts.name, facts.format) == ("net.onnx", "onnx")
    assert list((settings.data_dir / "work").iterdir()) == []


async def test_an_analysis_of_a_spec_is_a_report(runner):
    spec = Spec("mlp", SPEC)
    outcome = await runner.analyse(analysis(spec, **QUICK), deaf)
    report = Report.model_validate_json(outcome.result)
    assert (report.model.name, report.model.format) == ("little", "spec")
    assert outcome.verdict == report.summary.verdict


async def test_a_models_report_has_the_name_it_was_uploaded_by(runner, blobs):
    source = await upload(blobs, MODEL, "my (first) net.onnx")
    outcome = await runner.analyse(analysis(source, **QUICK), deaf)
    assert json.loads(outcome.result)["model"]["name"] == "my (first) net"


async def test_the_child_may_read_its_own_model_and_no_other_projects(runner, blobs, settings):
    seen = []

    async def look(_stage, _progress):
        folders = list((settings.data_dir / "work").iterdir())
        seen.append([file.name for folder in folders for file in folder.iterdir()])

    await blobs.put("other/models/secret", b"secret")
    source = await upload(blobs, MODEL)
    outcome = await runner.analyse(analysis(source, **QUICK), look)
    assert isinstance(outcome, Succeeded)
    assert seen
    assert all(set(names) == {"exchange", "model.onnx"} for names in seen)


async def test_a_model_that_is_none_fails_with_its_code(runner, blobs):
    outcome = await runner.inspect(InspectionJob("prj", "t", await upload(blobs, MODEL[:1000])))
    assert isinstance(outcome, Failed)
    assert outcome.fault["code"] == "model_truncated"
    assert set(outcome.fault) == {"code", "message", "where", "op", "limit", "hint"}


@pytest.mark.parametrize("kind", ["upload", "spec"])
async def test_the_forward_pass_is_checked_against_onnxruntime(runner, blobs, settings, kind):
    source = await upload(blobs, MODEL) if kind == "upload" else Spec("mlp", SPEC)
    outcome = await runner.analyse(analysis(source, **QUICK), deaf)
    report = Report.model_validate_json(outcome.result)
    found = next(m for m in report.measurements if m.name == "onnxruntime_difference")
    assert 0 <= found.value < 1e-5
    assert next(c for c in report.checks if c.rule_id == "GF401").status == "passed"
    assert report.provenance.stage_ms["onnxruntime"] > 0
    assert list((settings.data_dir / "work").iterdir()) == []


async def test_progress_never_goes_back_and_names_the_stages(runner):
    told = []

    async def tell(stage, progress):
        told.append((stage, progress))

    spec = yaml.safe_load((EXAMPLES / "deep-sigmoid.yaml").read_text())
    await runner.analyse(analysis(Spec("deep", spec)), tell)
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert {stage for stage, _ in told} <= set(SHARES)
    assert told[-1][0] == "remedy"


def test_the_stages_follow_on_each_other_from_nothing_to_all():
    ends = [overall(stage, 1.0) for stage in SHARES]
    assert [overall(stage, 0.0) for stage in SHARES] == [0.0, *ends[:-1]]
    assert ends[-1] == 1.0


def analysing(zygote):
    """The child that analyses: not one of the test before that is about to go."""
    held = (pid for pid in children(zygote.pid) if task(pid) == "analyze" and not gone(pid))
    return next(held, None)


async def test_a_killed_child_is_a_death(runner, zygote):
    def kill():
        os.kill(until(lambda: analysing(zygote)), signal.SIGKILL)

    running = asyncio.create_task(
        runner.analyse(analysis(Spec("s", SLOW["architecture"]), **SLOW["options"]), deaf)
    )
    await asyncio.to_thread(kill)
    outcome = await running
    assert isinstance(outcome, Died)
    assert "SIGKILL" in outcome.reason


async def test_whoever_lost_the_lease_stops_at_once(runner, zygote):
    async def lost(_stage, _progress):
        raise LeaseLost("ana")

    job = analysis(Spec("s", SLOW["architecture"]), **SLOW["options"])
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(runner.analyse(job, lost), 120)
    await asyncio.to_thread(until, lambda: children(zygote.pid) == [], 60)


async def test_a_cancelled_job_leaves_no_child(runner, zygote, settings):
    job = analysis(Spec("s", SLOW["architecture"]), **SLOW["options"])
    running = asyncio.create_task(runner.analyse(job, deaf))
    child = await asyncio.to_thread(until, lambda: analysing(zygote))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert gone(child)
    assert list((settings.data_dir / "work").iterdir()) == []


@pytest.mark.parametrize(("limit", "asked"), [(0.5, None), (600, 0.5), (0.5, 600)])
async def test_the_smaller_of_both_time_limits_holds(zygote, blobs, settings, limit, asked):
    changed = settings.model_copy(update={"analysis_time_limit_s": limit})
    runner = ConfinedRunner(zygote, blobs, changed, require=())
    options = SLOW["options"] | ({} if asked is None else {"time_limit_s": asked})
    outcome = await runner.analyse(analysis(Spec("s", SLOW["architecture"]), **options), deaf)
    # the run's own clock where a node was about to start, else the worker's
    ends = {"time_limit": "time_limit_s=0.5", "limit_exceeded": "seconds=0.475"}
    assert outcome.fault["limit"] == ends[outcome.fault["code"]]


async def test_a_report_larger_than_allowed_is_refused(zygote, blobs, settings):
    changed = settings.model_copy(update={"max_report_bytes": 1000})
    runner = ConfinedRunner(zygote, blobs, changed, require=())
    outcome = await runner.analyse(analysis(Spec("mlp", SPEC), **QUICK), deaf)
    assert outcome.fault["code"] == "result_too_large"


class Answering:
    """Stands for a zygote whose children say what they want."""

    def __init__(self, answer):
        self.answer = answer

    async def arun(self, request, *, wall_s, on_progress=None, respond=None):
        if isinstance(self.answer, Exception):
            raise self.answer
        return Outcome(result=self.answer, problem=None, sandbox={}, log="")


async def test_a_taken_over_childs_word_is_not_a_report(blobs, settings):
    lying = {"summary": {"verdict": "pass"}}
    runner = ConfinedRunner(Answering(lying), blobs, settings, require=())
    outcome = await runner.analyse(analysis(Spec("mlp", SPEC)), deaf)
    assert isinstance(outcome, Failed)
    assert outcome.fault["code"] == "malformed_result"


async def test_a_lost_zygote_is_a_death(blobs, settings):
    lost = ZygoteLost("child_not_started", "it is gone")
    runner = ConfinedRunner(Answering(lost), blobs, settings, require=())
    assert await runner.analyse(analysis(Spec("mlp", SPEC)), deaf) == Died("it is gone")


async def test_leftovers_of_killed_workers_are_swept(runner, settings):
    dead, held, young = (settings.data_dir / "work" / f"job-{name}" for name in "abc")
    for folder in (dead, held, young):
        folder.mkdir(parents=True)
    for folder in (dead, held):
        os.utime(folder, (0, 0))
    lock = os.open(held, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    await runner.analyse(analysis(Spec("mlp", SPEC), time_limit_s=0.01), deaf)
    assert (dead.exists(), held.exists(), young.exists()) == (False, True, True)
    os.close(lock)
