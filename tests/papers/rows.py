"""Published values and closed forms beside what the ensemble engine says: one row per number.

Numbers 1 to 19 are those of the theory sheet; `ours` asks the engine, and in rows that say
"simulated" the published side is a finite random network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from gradgauge.analytic.ensemble.kernels import kernel
from gradgauge.analytic.ensemble.maps import extreme
from gradgauge.analytic.ensemble.softmax import concentration
from tests.papers import simulated
from tests.papers.networks import block, chain, critical, dense, ensemble, normal, phi, repeat
from tests.papers.networks import residual as skip

GELU = (("approximate", "none"),)
SELU = (("alpha", 1.67326319217681884765625), ("gamma", 1.05070102214813232421875))
SELU_CHI = SELU[1][1] ** 2 * (0.5 + SELU[0][1] ** 2 * math.exp(2) * math.erfc(math.sqrt(2)) / 2)
SCHOENHOLZ = "Schoenholz et al. 2017"


@dataclass(frozen=True, slots=True)
class Row:
    number: str
    what: str
    source: str
    given: float | Callable[[], float]
    ours: Callable[[], float]
    tolerance: float  # relative

    @property
    def published(self) -> float:
        return self.given() if callable(self.given) else self.given


def normed(*between: dict, batch: int | None = None) -> float:
    found = ensemble(
        [512], repeat(20, dense(512), {"type": "batch_norm"}, *between), batch=batch, weight=LECUN
    )
    return block(found).chi


LECUN = {"kind": "lecun_normal"}
HE = {"kind": "he_normal"}


def sigmoid():
    return block(chain("sigmoid", 1.0, 0.0, n=64))


def at_one(name: str, parameters=()):
    return kernel(name, parameters, 0.0, 1.0)


def free_gamma(name: str, parameters=()) -> float:
    k = at_one(name, parameters)
    return 1 / math.sqrt(k.second - k.mean**2)


def band() -> float:
    """The band at the first of twenty layers of fifty units, as a variance of ln |Ju|^2."""
    found = ensemble([50], *[x for _ in range(20) for x in (dense(50), phi("relu"))], weight=HE)
    decades = found.unrolled()[0].analytic.band_decades
    assert decades is not None
    beta = (decades / 0.217) ** 2 / 5 + 1 / 50  # the band is of the layer's output
    return 5 * beta


def normed_chi(kind: str) -> float:
    chi = ensemble([4, 32], {"type": kind}).rows[0].analytic.chi
    assert chi is not None
    return chi


def recurrent_radius(kind: str) -> float:
    """Gradients of a linear-regime cell: the retention is the recurrent matrix's s_w."""
    found = ensemble(
        [50, 8],
        {"type": "rnn", "units": 400, "bias": False},
        weight=normal(1e-8, 8),
        recurrent={"kind": kind, "std": 0.05} if kind == "normal" else {"kind": kind},
        bias="zeros",
    )
    return found.recurrences["/layers.0"].retention


def residual_relu() -> float:
    found = ensemble([128], repeat(10, skip(dense(128), phi("relu"))), weight=HE)
    return block(found).chi


SHEET = (
    Row(
        "1",
        "tanh, s_b^2 = .05: critical s_w^2",
        SCHOENHOLZ,
        1.760955,
        lambda: critical(chain("tanh", 1.5, 0.05), 1.5),
        1e-5,
    ),
    Row(
        "1",
        "tanh at the edge: q*",
        SCHOENHOLZ,
        0.570048,
        lambda: block(chain("tanh", 1.760955, 0.05)).q_star,
        1e-5,
    ),
    Row(
        "2",
        "erf, s_b^2 = .05: critical s_w^2",
        SCHOENHOLZ,
        1.375839,
        lambda: critical(chain("erf", 1.2, 0.05), 1.2),
        1e-4,
    ),
    Row(
        "2",
        "erf at the edge: q*",
        SCHOENHOLZ,
        0.517177,
        lambda: block(chain("erf", 1.375839, 0.05)).q_star,
        1e-4,
    ),
    Row(
        "3",
        "erf, s_b = 0: critical s_w^2",
        "closed form, pi / 4",
        math.pi / 4,
        lambda: 1 / kernel("erf", (), 0.0, 1e-12).slope,
        1e-6,
    ),
    Row(
        "4",
        "tanh, s_b^2 = .05, s_w^2 = 1.5: chi",
        SCHOENHOLZ,
        0.938636,
        lambda: block(chain("tanh", 1.5, 0.05)).chi_star,
        1e-5,
    ),
    Row(
        "4",
        "the same: depth scale xi_c",
        SCHOENHOLZ,
        15.79,
        lambda: block(chain("tanh", 1.5, 0.05)).xi_c,
        1e-3,
    ),
    *(
        Row(
            "5",
            f"tanh, s_b^2 = .05, s_w^2 = {s}: trainable depth 6 xi_c",
            f"{SCHOENHOLZ}, fig. 5",
            depth,
            lambda s=s: block(chain("tanh", s, 0.05)).trainable_depth,
            1e-2,
        )
        for s, depth in ((1.0, 21.8), (1.3, 47.0), (1.5, 94.7), (1.7, 449.5))
    ),
    Row(
        "6",
        "ReLU, He: chi",
        "He et al. 2015",
        1.0,
        lambda: block(chain("relu", 2.0, 0.0)).chi,
        1e-9,
    ),
    Row("6", "ReLU: E phi^2 at q = 1", "He et al. 2015", 0.5, lambda: at_one("relu").second, 1e-9),
    Row(
        "7",
        "ReLU: overlap map at c = .5",
        "Cho & Saul 2009",
        0.608998,
        lambda: at_one("relu").pair(0.5).value / 0.5,
        1e-6,
    ),
    Row(
        "8",
        "erf: E phi^2 at q = 1",
        "Williams 1998",
        2 / math.pi * math.asin(2 / 3),
        lambda: at_one("erf").second,
        1e-9,
    ),
    Row(
        "8",
        "erf: E phi'^2 at q = 1",
        "Williams 1998",
        4 / (math.pi * math.sqrt(5)),
        lambda: at_one("erf").slope,
        1e-9,
    ),
    Row(
        "9",
        "GELU: E phi^2 at q = 1",
        "closed form",
        0.425221,
        lambda: at_one("gelu", GELU).second,
        1e-5,
    ),
    Row(
        "9",
        "GELU: E phi'^2 at q = 1",
        "closed form",
        0.455851,
        lambda: at_one("gelu", GELU).slope,
        1e-5,
    ),
    Row(
        "10",
        "sigmoid, s_w^2 = 1, s_b = 0: chi",
        "theory sheet",
        0.05572,
        lambda: sigmoid().chi_star,
        1e-3,
    ),
    Row(
        "10",
        "the same: decades of gradient per layer",
        "theory sheet",
        -0.6270,
        lambda: sigmoid().edge_decades,
        1e-3,
    ),
    Row(
        "11",
        "BatchNorm + ReLU, squared rate per layer",
        "Yang et al. 2019, pi / (pi - 1)",
        math.pi / (math.pi - 1),
        lambda: normed(phi("relu")),
        1e-6,
    ),
    Row(
        "11",
        "the same, norm rate (the 1.21 of the paper)",
        "Yang et al. 2019",
        1.21,
        lambda: math.sqrt(normed(phi("relu"))),
        2e-3,
    ),
    Row(
        "11",
        "the same at a batch of 128",
        "theory sheet, measured",
        1.475,
        lambda: normed(phi("relu"), batch=128),
        2e-2,
    ),
    Row(
        "11",
        "the same at a batch of 128",
        "simulated, 512 units",
        lambda: simulated.batch_norm_rate(128, rectified=True),
        lambda: normed(phi("relu"), batch=128),
        2e-2,
    ),
    *(
        Row(
            "12",
            f"BatchNorm, linear, batch of {b}",
            "(B - 2) / (B - 3), closed form",
            (b - 2) / (b - 3),
            lambda b=b: normed(batch=b),
            1e-4,
        )
        for b in (8, 32, 128)
    ),
    *(
        Row(
            "12",
            f"the same, batch of {b}",
            "simulated, 512 units",
            lambda b=b: simulated.batch_norm_rate(b, rectified=False),
            lambda b=b: normed(batch=b),
            2.5e-2,
        )
        for b in (8, 32, 128)
    ),
    Row(
        "13",
        "SELU: E phi^2 at q = 1",
        "Klambauer et al. 2017",
        1.0,
        lambda: at_one("selu", SELU).second,
        1e-6,
    ),
    Row(
        "13",
        "SELU, LeCun: chi",
        "closed form, l^2 (1/2 + a^2 e^2 Q(2))",
        SELU_CHI,
        lambda: at_one("selu", SELU).slope,
        1e-6,
    ),
    Row("13", "the same", "theory sheet", 1.07197, lambda: at_one("selu", SELU).slope, 1e-3),
    Row(
        "14",
        "normaliser-free gamma of ReLU",
        "Brock et al. 2021",
        1.7129,
        lambda: free_gamma("relu"),
        1e-3,
    ),
    Row(
        "14",
        "normaliser-free gamma of GELU",
        "Brock et al. 2021",
        1.7009,
        lambda: free_gamma("gelu", GELU),
        1e-3,
    ),
    Row(
        "14",
        "normaliser-free gamma of SiLU",
        "Brock et al. 2021",
        1.7872,
        lambda: free_gamma("swish", (("alpha", 1.0),)),
        1e-3,
    ),
    Row("15", "ReLU, He, beta = .4: variance of ln |Ju|^2", "Hanin 2018, 5 beta", 2.0, band, 1e-3),
    Row(
        "15",
        "the same",
        "simulated, 2,000 draws of 20 x 50",
        lambda: simulated.relu_jacobians(0.4, 50, 2000)[1],
        band,
        0.2,
    ),
    *(
        Row(
            "16",
            f"softmax of 256, logits of deviation {s}: T sum A^2",
            source,
            value,
            lambda s=s: 256 * concentration(s * s, 256),
            tolerance,
        )
        for s, value, source, tolerance in (
            (0.5, 1.284, "exp(s^2)", 0.03),
            (1.0, 2.718, "exp(s^2)", 0.05),
            (1.5, 7.24, "theory sheet, measured", 0.05),
        )
    ),
    Row(
        "17",
        "LayerNorm, n = 32: chi",
        "(n - 2) / (n - 3)",
        30 / 29,
        lambda: normed_chi("layer_norm"),
        1e-4,
    ),
    Row(
        "17",
        "RMSNorm, n = 32: chi",
        "(n - 1) / (n - 2)",
        31 / 30,
        lambda: normed_chi("rms_norm"),
        1e-4,
    ),
    Row(
        "18",
        "spectral radius of a Gaussian matrix, n = 400",
        "Girko 1985; simulated",
        lambda: simulated.radius(symmetric=False),
        lambda: recurrent_radius("normal"),
        0.05,
    ),
    Row(
        "18",
        "of a symmetric one, over the Gaussian's (drawn; no law of specs is symmetric)",
        "Wigner 1958",
        2.0,
        lambda: simulated.radius(symmetric=True) / simulated.radius(symmetric=False),
        0.05,
    ),
    Row("19", "x + relu(He x): chi per block", "closed form", 2.0, residual_relu, 1e-9),
    Row(
        "19",
        "the same: decades per block",
        "closed form",
        0.1505,
        lambda: 0.5 * math.log10(residual_relu()),
        1e-3,
    ),
    Row("", "largest of four normals: mean", "Harter 1961", 1.0294, lambda: extreme(4)[0], 1e-4),
)
