"""Keys: their form, their life, two at once."""

import hashlib
import zlib
from datetime import timedelta

import psycopg
import pytest

from gradgauge.errors import Conflict, NotFound
from gradgauge.store import keys as form
from gradgauge.store.ids import DEFAULT_PROJECT
from gradgauge.store.repository import audit, direct, keys
from tests.rows import new_project

pytestmark = pytest.mark.anyio


def test_a_key_holds_its_id_and_its_checksum():
    made = form.make()
    body, checksum = made.text[:-8], made.text[-8:]
    assert body.startswith(f"gg_{made.id}_")
    assert int(checksum, 16) == zlib.crc32(body.encode())
    assert made.sha256 == hashlib.sha256(made.text.encode()).hexdigest()
    assert form.id_of(made.text) == made.id


def test_what_is_not_whole_has_no_id():
    text = form.make().text
    for spoilt in (text.upper(), text[1:], text[:-1], f"{text}\n", text + text, ""):
        assert form.id_of(spoilt) is None


def test_one_wrong_letter_is_noticed():
    text = form.make().text
    wrong = "a" if text[30] != "a" else "b"
    assert form.id_of(text[:30] + wrong + text[31:]) is None


async def test_the_text_is_not_kept(database, database_url):
    async with database.session() as session:
        row, text = await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")
    with psycopg.connect(database_url) as control:
        stored = str(control.execute("SELECT * FROM api_keys").fetchall())
    assert row.id in stored
    assert text.rpartition("_")[2] not in stored


async def test_a_principal_has_two_live_keys_at_most(database):
    async with database.session() as session:
        first, _ = await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")
        await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")
        with pytest.raises(Conflict, match=first.id):
            await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")
        await keys.create(session, DEFAULT_PROJECT, principal="another", scope="read")
        await keys.revoke(session, DEFAULT_PROJECT, first.id)
        await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")


async def test_rotation_keeps_the_scope_and_ends_the_old_key(database):
    async with database.session() as session:
        old, _ = await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="read")
        new, _ = await keys.rotate(session, DEFAULT_PROJECT, old.id, overlap=timedelta(0))
        assert (new.principal, new.scope) == ("ci", "read")
        assert keys.lives(new)
        assert not keys.lives(old)
        with pytest.raises(Conflict, match="revoked or expired"):
            await keys.rotate(session, DEFAULT_PROJECT, old.id, overlap=timedelta(0))


async def test_a_key_of_another_project_is_not_there(database):
    async with database.session() as session:
        other = await new_project(session)
        row, _ = await keys.create(session, other, principal="ci", scope="write")
        with pytest.raises(NotFound):
            await keys.revoke(session, DEFAULT_PROJECT, row.id)
        assert await keys.listed(session, DEFAULT_PROJECT) == []


async def test_use_is_written_down_once_a_minute(database):
    async with database.session() as session:
        row, _ = await keys.create(session, DEFAULT_PROJECT, principal="ci", scope="write")
    seen = []
    for _ in range(2):
        async with database.direct() as connection:
            await direct.touch(connection, row.id)
            seen.append((await direct.key(connection, row.id)).last_used_at)
    assert seen[0] is not None
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "change", ["UPDATE audit_log SET status = 1", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
async def test_the_audit_log_only_grows(database, database_url, change):
    written = audit.Written(
        project_id=DEFAULT_PROJECT,
        principal="ci",
        key_id="k",
        method="POST",
        path="/v1/models",
        status=201,
        request_id="r",
    )
    async with database.direct() as connection:
        await direct.write_down(connection, written)
    with psycopg.connect(database_url) as control, pytest.raises(psycopg.Error, match="only grows"):
        control.execute(change)
    async with database.session() as session:
        assert len(await audit.page(session, DEFAULT_PROJECT, limit=5)) == 1
