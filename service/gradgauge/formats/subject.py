"""A report beside the file it is about, for formats that tell of files in a repository."""

from dataclasses import dataclass
from urllib.parse import quote

from gradgauge.formats.names import display
from gradgauge.schema.report import SEVERITIES, Finding, Report

SETTLED = {"fixed", "suppressed"}
LONGEST_PATH = 1000


@dataclass(frozen=True, slots=True)
class Subject:
    """`path` is the model's, relative to the repository, with forward slashes."""

    report: Report
    path: str

    @property
    def uri(self) -> str:
        """The path as a relative URI reference (RFC 3986)."""
        return quote(self.path.encode("utf-8", "backslashreplace"), safe="/")

    @property
    def shown(self) -> str:
        """The path without a character that could steer a terminal."""
        return display(self.path, LONGEST_PATH)

    def live(self) -> list[Finding]:
        """Findings that count, the gravest first."""
        found = [f for f in self.report.findings if f.status not in SETTLED]
        return sorted(found, key=lambda f: -SEVERITIES.index(f.severity))

    def violates(self, finding: Finding) -> bool:
        """Whether the report's gate fails by it."""
        gate = self.report.gate
        return gate is not None and finding.id in gate.violating_findings

    def doubt(self) -> str | None:
        """Why nothing conclusive can be said; None where it can."""
        if self.report.summary.verdict != "inconclusive":
            return None
        gate = self.report.gate
        return display(gate.reason if gate else self.report.summary.headline, LONGEST_PATH)

    def place(self, finding: Finding) -> str | None:
        """The layer where it starts, by name; None where no layer does."""
        names = {layer.id: layer.name for layer in self.report.layers}
        return names.get(finding.origins[0]) if finding.origins else None
