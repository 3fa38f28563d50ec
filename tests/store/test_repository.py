"""Queries: what one project can see of another, pages, and unpleasant names."""

import pytest

from gradgauge.errors import NotFound
from gradgauge.store.ids import DEFAULT_PROJECT, new_id
from gradgauge.store.repository import analyses, architectures, models
from gradgauge.store.tables import Project
from tests.rows import analysis_of, new_architecture, new_model, new_project, ready_model

pytestmark = pytest.mark.anyio


async def test_each_project_sees_its_own_rows_alone(database):
    async with database.session() as session:
        other = await new_project(session)
        rows = {}
        for project in (DEFAULT_PROJECT, other):
            model = await ready_model(session, project)
            made = await analyses.add(session, analysis_of(model))
            rows[project] = (model, await new_architecture(session, project, layers=[]), made)
        for mine, theirs in ((DEFAULT_PROJECT, other), (other, DEFAULT_PROJECT)):
            for noun, row, foreign in zip(
                (models, architectures, analyses), rows[mine], rows[theirs], strict=True
            ):
                assert (await noun.get(session, mine, row.id)).id == row.id
                assert [found.id for found in await noun.page(session, mine, limit=9)] == [row.id]
                with pytest.raises(NotFound):
                    await noun.get(session, mine, foreign.id)
            assert (await models.by_sha256(session, mine, "a" * 64)).id == rows[mine][0].id
            with pytest.raises(NotFound):
                await models.delete(session, mine, rows[theirs][0].id)
            assert await analyses.events(session, mine, rows[theirs][2].id) == []
            assert await analyses.waiting(session, mine) == 1


async def test_a_report_is_not_answered_from_another_projects(database):
    async with database.session() as session:
        other = await new_project(session)
        model = await ready_model(session, other)
        same, ours = analysis_of(model), analysis_of(await ready_model(session))
        made = await analyses.add(session, analysis_of(model))
        made.state, made.report_key, made.verdict = "succeeded", "r", "pass"
        await session.flush()
        told = await analyses.add_cached(session, same)
        assert (told.report_key, told.verdict, told.state) == ("r", "pass", "succeeded")
        assert await analyses.add_cached(session, ours) is None


async def test_the_same_content_is_held_once_in_a_project_and_apart_between_projects(database):
    async with database.session() as session:
        other = await new_project(session)
        first = await new_model(session)
        again = await new_model(session)
        theirs = await new_model(session, other)
    assert first.id == again.id
    assert theirs.id != first.id


async def test_the_same_spec_is_held_once_whatever_the_order_of_its_keys(database):
    async with database.session() as session:
        first = await new_architecture(session, a=1, b=2)
        again = await new_architecture(session, b=2, a=1)
        third = await new_architecture(session, a=1, b=3)
    assert first.id == again.id
    assert third.id != first.id
    assert list(first.spec) == ["a", "b"]


async def test_pages_follow_each_other_without_gap_or_repeat(database):
    async with database.session() as session:
        for number in range(7):
            await new_model(session, sha256=f"{number:064}")
        everything = [row.id for row in await models.page(session, DEFAULT_PROJECT, limit=99)]
        paged, before = [], None
        while page := await models.page(session, DEFAULT_PROJECT, limit=3, before=before):
            paged += [row.id for row in page]
            before = paged[-1]
    assert paged == everything == sorted(everything, reverse=True)
    assert len(paged) == 7


async def test_lists_are_filtered(database):
    async with database.session() as session:
        model = await ready_model(session)
        queued = await analyses.add(session, analysis_of(model))
        failed = await analyses.add(session, analysis_of(model))
        failed.state = "failed"
        await session.flush()

        async def ids(**filters):
            page = await analyses.page(session, DEFAULT_PROJECT, limit=9, **filters)
            return {row.id for row in page}

        assert await ids(state="failed") == {failed.id}
        assert await ids(state="queued", model_id=model.id) == {queued.id}
        assert await ids(architecture_id="arc_none") == set()
        assert await ids() == {queued.id, failed.id}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("nul\0byte", "nul\N{REPLACEMENT CHARACTER}byte"),
        ("lone\udc80surrogate", "lone?surrogate"),
        ("x" * 300, "x" * 255),
        ("'; DROP TABLE models; --", "'; DROP TABLE models; --"),
    ],
)
async def test_unpleasant_names_are_kept_as_far_as_a_page_can_show_them(database, given, kept):
    async with database.session() as session:
        model_id = (await new_model(session, name=given)).id
    async with database.session() as session:
        assert (await models.get(session, DEFAULT_PROJECT, model_id)).name == kept


async def test_json_keeps_a_nul_a_surrogate_and_the_order_of_its_keys(database):
    facts = {"z": "a\0b", "a": "\udc80", "m": [1.5, None, 2**70]}
    async with database.session() as session:
        model = await new_model(session)
        model.facts = facts
    async with database.session() as session:
        read = (await models.get(session, DEFAULT_PROJECT, model.id)).facts
    assert read == facts
    assert list(read) == ["z", "a", "m"]


async def test_ids_sort_by_their_birth_in_the_database_too(database):
    born = [new_id("prj") for _ in range(3)]
    odd = ["prj_B", "prj_a", "prj__"]
    async with database.session() as session:
        session.add_all([Project(id=each, name=each) for each in born + odd])
    async with database.session() as session:
        found = list(
            await session.scalars(
                Project.__table__.select().with_only_columns(Project.id).order_by(Project.id)
            )
        )
    assert found == sorted(found)


def test_ids_of_different_milliseconds_sort_by_time(monkeypatch):
    clock = iter(range(1_000_000, 1_000_050))
    monkeypatch.setattr("gradgauge.store.ids.time.time", lambda: next(clock) / 1000)
    ids = [new_id("mdl") for _ in range(50)]
    assert ids == sorted(ids)
    assert all(len(each) == 30 and each.startswith("mdl_") for each in ids)
