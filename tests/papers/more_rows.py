"""Published values beyond the theory sheet's, beside the ensemble engine's."""

import math

from tests.papers.networks import block, chain, critical, dense, ensemble, normal, phi, repeat
from tests.papers.networks import residual as skip
from tests.papers.rows import HE, LECUN, Row

XIONG = "Xiong et al. 2020; closed form"


def last(found, type_: str):
    return [row for row in found.rows if row.type == type_][-1]


def hayou() -> float:
    """Depth^2 (1 - c) of a critical ReLU network, two inputs uncorrelated at first."""
    depth = 5000
    found = ensemble([64], repeat(depth, dense(64), phi("relu")), weight=HE)
    state = found.chain.after
    return depth**2 * (1 - state.o / state.q)


def orthogonal() -> float:
    return block(chain("tanh", 1.760955, 0.05, kind="orthogonal")).chi_star


def wide_conv() -> float:
    conv = {"type": "conv1d", "filters": 64, "kernel": 3, "padding": "same"}
    found = ensemble(
        [64, 4096],
        repeat(200, conv, phi("tanh")),
        weight=normal(1.5, 192),
        bias=normal(0.05, 1),
    )
    return critical(found, 1.5)


def stream(norm: str, blocks: int) -> float:
    """The variance of a residual stream after `blocks` normalised linear branches."""
    branch = skip({"type": norm, "bias": False}, dense(256, bias=False))
    found = ensemble([256], repeat(blocks, branch), weight=LECUN)
    return found.chain.after.q


def stream_gradient(blocks: int) -> float:
    """Squared gradient at the first over that at the last block of a pre-norm stream."""
    branch = skip({"type": "layer_norm", "bias": False}, dense(4096, bias=False))
    found = ensemble([4096], *[branch for _ in range(blocks)], weight=LECUN)
    assert found.input_gradient is not None
    return 10 ** (2 * found.input_gradient)


def deep_norm() -> float:
    """Chi of one sublayer of a DeepNorm encoder of eighteen layers, its branch linear."""
    alpha, beta = 36**0.25, 144**-0.25
    found = ensemble(
        [16, 1024],
        repeat(
            36,
            skip(dense(1024, bias=False), shortcut_scale=alpha),
            {"type": "layer_norm", "bias": False},
        ),
        weight={"kind": "glorot_normal", "gain": beta},
    )
    return block(found).chi


def cell(b: float) -> float:
    """Steps an LSTM's cell lasts whose weights are zero and whose forget bias is b."""
    layer = {"type": "lstm", "units": 32, "forget_bias": b}
    found = ensemble([20, 8], layer, weight="zeros", recurrent="zeros")
    horizon = found.recurrences["/layers.0"].cell_horizon
    assert horizon is not None
    return horizon


def gate(b: float) -> float:
    """Retention of a GRU whose weights are zero and whose biases, two that add, are b / 2."""
    found = ensemble(
        [20, 8],
        {"type": "gru", "units": 32},
        weight="zeros",
        recurrent="zeros",
        bias={"kind": "constant", "value": b / 2},
    )
    return found.recurrences["/layers.0"].retention


def elman(s_w2: float) -> float:
    found = ensemble(
        [20, 8],
        {"type": "rnn", "units": 256},
        weight="zeros",
        recurrent=normal(s_w2, 256),
        bias=normal(0.025, 1),
    )
    return found.recurrences["/layers.0"].horizon


def collapse() -> float:
    """Correlation of tokens behind one layer of attention that looks at all alike."""
    layer = {"type": "attention", "heads": 4, "init": {"query": "zeros", "key": "zeros"}}
    found = ensemble([64, 128], layer, weight=LECUN)
    return found.chain.after.t / found.chain.after.q


def collapsed_keys() -> float:
    """What passes through attention when all tokens are alike: the values' share alone."""
    same = [
        {"type": "global_avg_pool", "axis": -1},
        {"type": "reshape", "shape": [1, 128]},
    ]
    tokens = {"type": "attention", "heads": 1}
    found = ensemble([64, 128], *same, tokens, weight=LECUN)
    (row,) = [row for row in found.rows if row.type == "attention"]
    assert row.analytic.chi is not None
    return row.analytic.chi


def coordinates(width: int, *, readout: bool) -> float:
    layers = [dense(width), phi("relu"), dense(width), phi("relu")]
    layers += [{"type": "dense", "units": 10, "init": {"weight": "mup_output"}}] if readout else []
    rms = ensemble([64], *layers, weight=HE).rows[-1].analytic.forward_rms
    assert rms is not None
    return rms


def width_slope(*, readout: bool) -> float:
    wide, narrow = (coordinates(n, readout=readout) for n in (4096, 256))
    return math.log(wide / narrow) / math.log(4096 / 256)


def schemed(scheme) -> float:
    net = [dense(64), repeat(50, skip(dense(64), phi("relu"), dense(64))), dense(10)]
    return block(ensemble([64], *net, scheme=scheme)).chi


def free(blocks: int) -> float:
    """Variance of a normaliser-free stream of alpha = .2 whose branches keep variance one."""
    found = ensemble(
        [256],
        repeat(blocks, skip({"type": "layer_norm", "bias": False}, dense(256), scale=0.2)),
        weight=LECUN,
    )
    return found.chain.after.q


def tanh_stream() -> float:
    """Variance a tanh residual stream gains per block where it has saturated."""
    net = [repeat(n, skip(dense(128), phi("tanh"), dense(128))) for n in (3000, 3000)]
    found = ensemble([128], *net, weight=LECUN)
    middle = found.chain.items[1].before.q
    return (found.chain.after.q - middle) / 3000


MORE = (
    Row(
        "",
        "leaky ReLU (.25), He's gain 2 / (1 + a^2): chi",
        "He et al. 2015",
        1.0,
        lambda: (
            block(
                ensemble(
                    [64],
                    repeat(9, dense(64), phi("leaky_relu", alpha=0.25)),
                    weight=normal(2 / (1 + 0.25**2), 64),
                )
            ).chi
        ),
        1e-9,
    ),
    Row(
        "",
        "linear, Glorot, 300 to 100: backward variance factor 2 n_out / (n_in + n_out)",
        "Glorot & Bengio 2010",
        0.5,
        lambda: ensemble([300], dense(100)).rows[0].analytic.backward_gain ** 2,
        1e-9,
    ),
    Row(
        "",
        "ReLU at the edge: l^2 (1 - c_l)",
        "Hayou et al. 2019, 9 pi^2 / 2",
        4.5 * math.pi**2,
        hayou,
        1e-2,
    ),
    Row(
        "",
        "tanh, orthogonal, s_b^2 = .05, critical gain: chi",
        "Pennington et al. 2017",
        1.0,
        orthogonal,
        1e-5,
    ),
    Row(
        "",
        "tanh convolution, s_b^2 = .05: critical s_w^2",
        "Xiao et al. 2018",
        1.760955,
        wide_conv,
        1e-3,
    ),
    Row(
        "",
        "tanh residual: variance gained per block",
        "Yang & Schoenholz 2017, linear growth",
        1.0,
        tanh_stream,
        3e-2,
    ),
    Row(
        "",
        "x + W BN(x): variance after 20 blocks, 1 + l",
        "De & Smith 2020",
        21.0,
        lambda: stream("batch_norm", 20),
        1e-3,
    ),
    Row(
        "",
        "pre-LN: variance after 20 blocks, 1 + l",
        XIONG,
        21.0,
        lambda: stream("layer_norm", 20),
        1e-2,
    ),
    Row(
        "",
        "pre-LN: squared gradient at block 1 over block 20, 1 + L",
        XIONG,
        21.0,
        lambda: stream_gradient(20),
        1e-2,
    ),
    Row(
        "",
        "NF stream, alpha = .2: variance after 25 blocks, 1 + l alpha^2",
        "Brock et al. 2021",
        2.0,
        lambda: free(25),
        1e-2,
    ),
    Row(
        "",
        "ReZero: chi per block",
        "Bachlechner et al. 2020",
        1.0,
        lambda: schemed("rezero"),
        1e-12,
    ),
    Row(
        "", "Fixup: chi per block", "Zhang, Dauphin & Ma 2019", 1.0, lambda: schemed("fixup"), 1e-12
    ),
    Row(
        "",
        "DeepNorm, 18 encoder layers, linear branch: chi",
        "Wang et al. 2022; closed form",
        1.0,
        deep_norm,
        1e-3,
    ),
    Row(
        "",
        "muP: log-log slope of hidden RMS over width",
        "Yang et al. 2021",
        0.0,
        lambda: width_slope(readout=False),
        1e-9,
    ),
    Row(
        "",
        "muP: log-log slope of the readout at initialisation",
        "Yang et al. 2021",
        -0.5,
        lambda: width_slope(readout=True),
        1e-9,
    ),
    *(
        Row(
            "",
            f"LSTM, forget bias ln {t - 1}: cell horizon, about {t} steps",
            "Tallec & Ollivier 2018",
            1 / -math.log1p(-1 / t),
            lambda t=t: cell(math.log(t - 1)),
            1e-6,
        )
        for t in (2, 10, 100, 1000)
    ),
    *(
        Row(
            "",
            f"GRU, update bias ln {t - 1}: retention 1 - 1 / {t}",
            "Tallec & Ollivier 2018",
            1 - 1 / t,
            lambda t=t: gate(math.log(t - 1)),
            1e-6,
        )
        for t in (2, 100)
    ),
    Row(
        "",
        "tanh RNN, s_b^2 = .05, s_w^2 = 1.5: steps per e of gradient RMS, 2 xi",
        "Chen, Pennington & Schoenholz 2018",
        31.58,
        lambda: elman(1.5),
        1e-3,
    ),
    Row(
        "",
        "uniform attention: correlation of tokens behind it",
        "Dong et al. 2021",
        1.0,
        collapse,
        1e-9,
    ),
    Row(
        "",
        "attention over identical tokens: queries and keys get no gradient, values chi 1",
        "Noci et al. 2022",
        1.0,
        collapsed_keys,
        1e-9,
    ),
)
