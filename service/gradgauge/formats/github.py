"""Reports as GitHub's workflow commands, which a runner turns into annotations of files."""

from collections.abc import Iterator, Sequence

from gradgauge.formats.names import display
from gradgauge.formats.subject import LONGEST_PATH, Subject
from gradgauge.schema.report import Finding


def to_github(subjects: Sequence[Subject]) -> str:
    """A line for each finding that counts, by what it does to the gate; then one for the gate."""
    return "".join(f"{line}\n" for subject in subjects for line in _lines(subject))


def _lines(subject: Subject) -> Iterator[str]:
    for finding in subject.live():
        title = f"{finding.rule_id} {finding.title}"
        place = subject.place(finding)
        where = f" (starts at {place})" if place is not None else ""
        yield _command(_kind(subject, finding), subject, title, f"{finding.message}{where}")
    doubt = subject.doubt()
    if doubt is not None:
        yield _command("error", subject, "inconclusive", doubt)
    gate = subject.report.gate
    if gate is not None:
        passed = "passed" if gate.passed else "not passed"
        yield _command("notice", subject, f"gate {gate.policy}", f"{passed}: {gate.reason}")


def _kind(subject: Subject, finding: Finding) -> str:
    if subject.violates(finding):
        return "error"
    quiet = finding.status == "existing" or finding.severity in {"low", "none"}
    return "notice" if quiet else "warning"


def _command(kind: str, subject: Subject, title: str, message: str) -> str:
    told = _escaped(display(message, LONGEST_PATH))
    return f"::{kind} file={_property(subject.path)},line=1,title={_property(title)}::{told}"


def _escaped(text: str) -> str:
    """What a runner decodes (actions/toolkit, core.command): percent and line ends."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    shown = _escaped(display(text, LONGEST_PATH))
    return shown.replace(":", "%3A").replace(",", "%2C")
