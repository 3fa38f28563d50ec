"""Every architecture by name, and the opsets it is exported at."""

from collections.abc import Iterator

from tests.architectures.decoders import DECODERS
from tests.architectures.encoders import ENCODERS
from tests.architectures.pairs import PAIRS
from tests.architectures.plain import PLAIN
from tests.architectures.series import SERIES
from tests.architectures.vision import VISION
from tests.exports import Exporter

ARCHITECTURES = {**PLAIN, **ENCODERS, **DECODERS, **PAIRS, **VISION, **SERIES}
_OPSETS: dict[Exporter, range] = {"torchscript": range(13, 21), "dynamo": range(18, 24)}


def settings(name: str) -> Iterator[tuple[Exporter, int]]:
    """Each exporter, at opsets that go round from one architecture to the next."""
    place, since = list(ARCHITECTURES).index(name), ARCHITECTURES[name].since
    for exporter, opsets in _OPSETS.items():
        allowed = [o for o in opsets if o >= since]
        yield exporter, allowed[place % len(allowed)]
