"""What an analysis loads at its first use, loaded before the fork: else every child pays for it.

No operator is run. `tests/worker/test_warm.py` looks at what a child still loads.
"""

import importlib

from gradgauge import compose
from gradgauge.risk import calibration

# torch.autograd.grad imports the first (and sympy with it), the reading of a spec the second, a
# repeated block and a large map's spectrum the others.
_LATER = (
    "torch.fx.experimental.symbolic_shapes",
    "encodings.utf_8_sig",
    "scipy.optimize",
    "scipy.sparse.linalg",
)


def up() -> None:
    """Import what is imported late, read the risk's tables and the libraries' versions."""
    for name in _LATER:
        importlib.import_module(name)
    calibration.load()
    compose.versions()
