"""An ordinary analysis is queued in one round trip."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_HELD = """
CREATE FUNCTION gradgauge_held_bytes(_project_id text) RETURNS numeric LANGUAGE sql STABLE AS $$
    SELECT (SELECT coalesce(sum(size_bytes), 0) FROM models WHERE project_id = _project_id)
         + (SELECT coalesce(sum(report_bytes), 0) FROM analyses WHERE project_id = _project_id)
         + (SELECT coalesce(sum(part.size_bytes), 0)
              FROM upload_parts part JOIN uploads whole ON whole.id = part.upload_id
             WHERE whole.project_id = _project_id AND whole.state = 'open')
$$
"""
# Each statement of a function sees what was committed before it began: what is counted behind the
# project's lock is what the lock's last holder left.
_ENQUEUE = """
CREATE FUNCTION gradgauge_enqueue(
    _id text, _project_id text, _name text, _options json, _cache_key text, _model_id text,
    _architecture_id text, _request_id text, _traceparent text, _behind integer, _fresh boolean,
    _queued bigint, _bytes bigint, _key text, _body_sha256 text
) RETURNS SETOF analyses LANGUAGE plpgsql AS $$
DECLARE
    waiting bigint;
    job bigint;
    made analyses;
BEGIN
    IF _key IS NOT NULL THEN
        IF NOT pg_try_advisory_xact_lock(hashtextextended(_project_id || '/' || _key, 0)) THEN
            RETURN;
        END IF;
        PERFORM FROM idempotency_keys WHERE project_id = _project_id AND key = _key;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF _model_id IS NOT NULL THEN
        PERFORM FROM models
          WHERE project_id = _project_id AND id = _model_id AND state = 'ready' FOR SHARE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    IF NOT _fresh THEN
        PERFORM FROM analyses
          WHERE project_id = _project_id AND cache_key = _cache_key AND state = 'succeeded'
            AND report_key IS NOT NULL LIMIT 1;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    SELECT CASE WHEN quota_queued IS NULL THEN _queued ELSE nullif(quota_queued, 0) END,
           CASE WHEN quota_bytes IS NULL THEN _bytes ELSE nullif(quota_bytes, 0) END
      INTO _queued, _bytes
      FROM projects WHERE id = _project_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT count(*) INTO waiting
      FROM analyses WHERE project_id = _project_id AND state = 'queued';
    IF waiting >= _queued THEN
        RETURN;
    END IF;
    IF _bytes IS NOT NULL THEN
        IF gradgauge_held_bytes(_project_id) >= _bytes THEN
            RETURN;
        END IF;
    END IF;
    job := (procrastinate_defer_jobs_v1(ARRAY[ROW(
        'analyse', 'analyse', (-waiting - 1 - _behind)::integer, NULL, NULL,
        jsonb_build_object('row_id', _id), NULL)::procrastinate_job_to_defer_v1]))[1];
    INSERT INTO analyses (id, project_id, name, options, cache_key, model_id, architecture_id,
                          request_id, traceparent, job_id)
      VALUES (_id, _project_id, _name, _options, _cache_key, _model_id, _architecture_id,
              _request_id, _traceparent, job)
      RETURNING * INTO made;
    INSERT INTO events (analysis_id, state, stage, progress)
      VALUES (made.id, made.state, made.stage, made.progress);
    PERFORM pg_notify('gradgauge_changed', made.id);
    IF _key IS NOT NULL THEN
        INSERT INTO idempotency_keys (project_id, key, body_sha256, analysis_id)
          VALUES (_project_id, _key, _body_sha256, made.id);
    END IF;
    RETURN NEXT made;
END $$
"""


def upgrade() -> None:
    """Create the functions; the queue's own, which is called, need not be there yet."""
    op.execute(_HELD)
    op.execute(_ENQUEUE)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP FUNCTION gradgauge_enqueue")
    op.execute("DROP FUNCTION gradgauge_held_bytes")
