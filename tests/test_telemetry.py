"""Logs: one JSON object a line, whoever logs, whatever a name holds."""

import io
import json
import logging

import pytest
import structlog

from gradgauge import telemetry


@pytest.fixture(autouse=True)
def _restored():
    root, handlers, level = logging.root, logging.root.handlers[:], logging.root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_an_event_is_one_json_object_with_its_fields():
    out = io.StringIO()
    telemetry.set_up(level="info", form="json", stream=out)
    structlog.get_logger().info("analysis_done", layers=3)
    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert (said["event"], said["layers"], said["level"]) == ("analysis_done", 3, "info")
    assert said["timestamp"].endswith("Z")


def test_libraries_speak_the_same_way():
    out = io.StringIO()
    telemetry.set_up(level="info", form="json", stream=out)
    logging.getLogger("some.library").warning("took %d s", 3)  # noqa: TID251
    said = json.loads(out.getvalue())
    assert (said["event"], said["level"]) == ("took 3 s", "warning")


def test_what_is_less_severe_is_not_written():
    out = io.StringIO()
    telemetry.set_up(level="warning", form="json", stream=out)
    structlog.get_logger().info("quiet")
    logging.getLogger("procrastinate.worker").info("quiet")  # noqa: TID251
    assert out.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_name_from_an_upload_cannot_steer_a_terminal(stream):
    telemetry.set_up(level="info", form="auto", stream=stream)
    name = "\x1b[2Jevil\r\n\u202egnp\u009b31m"
    structlog.get_logger().info("read", name=name, nested={"names": [name]})
    written = stream.getvalue()
    for character in "\r\u202e\u009b":
        assert character not in written
    assert "\x1b[2J" not in written
    assert written.count("\n") == 1
    assert "evil" in written


def test_an_exception_is_one_line_of_json_and_keeps_its_own_lines():
    out = io.StringIO()
    telemetry.set_up(level="info", form="json", stream=out)
    try:
        int("bad\x1b[31m name")
    except ValueError:
        structlog.get_logger().exception("failed", name="bad\x1b[31m name")
    (line,) = out.getvalue().splitlines()
    said = json.loads(line)
    assert "Traceback" in said["exception"].splitlines()[0]
    assert said["exception"].splitlines()[-1].startswith("ValueError: invalid literal")
    assert said["name"] == r"bad\u001b[31m name"


def test_a_terminal_gets_readable_lines_and_a_pipe_json():
    pipe, terminal = io.StringIO(), Terminal()
    telemetry.set_up(level="info", form="auto", stream=pipe)
    structlog.get_logger().info("up")
    telemetry.set_up(level="info", form="auto", stream=terminal)
    structlog.get_logger().info("up")
    assert pipe.getvalue().startswith("{")
    assert not terminal.getvalue().startswith("{")
