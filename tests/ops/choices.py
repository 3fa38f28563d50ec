"""Cases of ops/selection.py, ops/mapping.py, ops/text.py, ops/chance.py and ops/training.py."""

import numpy as np

from tests.ops.case import Case, bools, ints, normal, scalar, uniform

_TRAINING = "ai.onnx.preview.training"
_ML = "ai.onnx.ml"
_BOXES = np.array(
    [[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [1, 10.1, 0, 11.1]]],
    np.float32,
)
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5], [0.1, 0.8, 0.7, 0.2, 0.3]]], np.float32)
_LIMITS = (ints(3), *(np.array([v], np.float32) for v in (0.5, 0.15)))
_WORDS = np.array(["Monday ", "a,b,,c", ""], dtype=object)
_STEP = (np.array(0.1, np.float32), scalar(3))
_STATE = (normal(3), normal(3), uniform(0.5, 2, 3))
_NGRAMS = {
    "max_gram_length": 2,
    "max_skip_count": 1,
    "min_gram_length": 1,
    "ngram_counts": [0, 3],
    "ngram_indexes": [0, 1, 2, 3, 4],
    "pool_int64s": [2, 3, 5, 2, 3, 5, 2],
    "weights": [1.0, 2.0, 0.5, 3.0, 1.5],
}


def _adagrad(r, t, x, g, h):
    """Duchi et al. 2011: the squares add up, each weight has a rate of its own."""
    g = g + 0.01 * x
    h = h + g**2
    return [
        (x - r / (1 + 0.1 * t) * g / (np.sqrt(h) + 1e-3)).astype(np.float32),
        h.astype(np.float32),
    ]


def _adam(r, t, x, g, v, h):
    """Kingma and Ba 2015, algorithm 1 with the corrected rate of its section 2."""
    v, h = 0.8 * v + 0.2 * g, 0.9 * h + 0.1 * g**2
    rate = r * np.sqrt(1 - 0.9**t) / (1 - 0.8**t)
    return [a.astype(np.float32) for a in (x - rate * v / (np.sqrt(h) + 1e-3), v, h)]


def _nesterov(r, _t, x, g, v):
    v = 0.9 * v + 0.8 * g
    return [a.astype(np.float32) for a in (x - r * (g + 0.9 * v), v)]


def _polyak(r, _t, x, g, v):
    v = 0.9 * v + 0.8 * g
    return [a.astype(np.float32) for a in (x - r * v, v)]


def _drawn(kind):
    """The seeded stream ONNX's reference draws from."""
    state = np.random.RandomState(7)
    draws = {
        "uniform": lambda s: state.uniform(-1, 3, s),
        "normal": lambda s: 2 + 0.5 * state.randn(*s),
    }
    return lambda *x: [draws[kind](x[0].shape if x else (2, 3)).astype(np.float32)]


_SEED = {"seed": 7.0}
_FLAT, _BELL = {"low": -1.0, "high": 3.0, **_SEED}, {"mean": 2.0, "scale": 0.5, **_SEED}
_PROBABILITIES = uniform(0, 1, 4, 5)

CASES = [
    Case("Compress", 11, (normal(3, 4), np.array([1, 0, 1], bool)), {"axis": 0}),
    Case("Compress", 9, (normal(3, 4), bools(12))),
    Case("CumProd", 26, (normal(3, 4), scalar(1)), oracle=lambda x, _: [np.cumprod(x, 1)]),
    Case(
        "CumProd",
        26,
        (normal(3, 4), scalar(0)),
        {"exclusive": 1, "reverse": 1},
        oracle=lambda x, _: [
            np.cumprod(np.vstack([x, np.ones((1, 4), np.float32)])[::-1], 0)[:3][::-1]
        ],
    ),
    Case("Det", 11, (normal(2, 3, 3),), tolerance=1e-4),
    *(
        Case("Unique", 11, (ints(2, 1, 1, 3, 4, 3),), {"sorted": s}, outputs=4, smooth=False)
        for s in (0, 1)
    ),
    Case("Unique", 11, (ints([1, 0], [1, 0], [2, 3]),), {"axis": 0}, outputs=4, smooth=False),
    *(
        Case(
            "NonMaxSuppression",
            11,
            (_BOXES, _SCORES, *_LIMITS),
            {"center_point_box": c},
            smooth=False,
        )
        for c in (0, 1)
    ),
    Case("NonMaxSuppression", 10, (_BOXES, _SCORES), smooth=False),
    Case("ArrayFeatureExtractor", 1, (normal(3, 4), ints(2, 0)), domain=_ML),
    Case("Binarizer", 1, (normal(3, 4),), {"threshold": 0.2}, domain=_ML, smooth=False),
    Case(
        "LabelEncoder",
        2,
        (ints(3, 9, 4),),
        {"keys_int64s": [3, 4], "values_floats": [0.5, 1.5], "default_float": -2.0},
        domain=_ML,
        smooth=False,
    ),
    Case(
        "LabelEncoder",
        2,
        (_WORDS,),
        {"keys_strings": ["", "x"], "values_strings": ["none", "y"]},
        domain=_ML,
        smooth=False,
    ),
    Case("StringConcat", 20, (_WORDS, np.array(["!"], dtype=object)), smooth=False),
    Case(
        "StringSplit",
        20,
        (_WORDS,),
        {"delimiter": ","},
        outputs=2,
        smooth=False,
        # onnxruntime splits "" into nothing, ONNX's reference into one empty string
        oracle="reference",
    ),
    Case("StringSplit", 20, (_WORDS,), {"maxsplit": 1}, outputs=2, smooth=False),
    Case(
        "StringNormalizer",
        10,
        (_WORDS,),
        {"case_change_action": "UPPER", "stopwords": ["MONDAY "]},
        smooth=False,
        oracle=lambda _: [np.array(["A,B,,C", ""], dtype=object)],
    ),
    *(
        Case(
            "TfIdfVectorizer",
            9,
            (ints([2, 3, 3, 5], [5, 2, 5, 2]),),
            {**_NGRAMS, "mode": mode},
            smooth=False,
        )
        for mode in ("TF", "IDF", "TFIDF")
    ),
    Case(
        "Bernoulli",
        15,
        (_PROBABILITIES,),
        _SEED,
        smooth=False,
        oracle=lambda p: [(np.random.RandomState(7).uniform(0, 1, p.shape) < p).astype(np.float32)],
    ),
    Case(
        "RandomUniform", 1, (), {"shape": [2, 3], **_FLAT}, smooth=False, oracle=_drawn("uniform")
    ),
    Case("RandomUniformLike", 1, (normal(3, 2),), _FLAT, smooth=False, oracle=_drawn("uniform")),
    Case("RandomNormal", 1, (), {"shape": [2, 3], **_BELL}, smooth=False, oracle=_drawn("normal")),
    Case("RandomNormalLike", 1, (normal(3, 2),), _BELL, smooth=False, oracle=_drawn("normal")),
    Case(
        "Adagrad",
        1,
        (*_STEP, *_STATE),
        {"norm_coefficient": 0.01, "epsilon": 1e-3, "decay_factor": 0.1},
        outputs=2,
        domain=_TRAINING,
        oracle=_adagrad,
    ),
    Case(
        "Adam",
        1,
        (*_STEP, *_STATE[:2], normal(3), _STATE[2]),
        {"alpha": 0.8, "beta": 0.9, "epsilon": 1e-3},
        outputs=3,
        domain=_TRAINING,
        oracle=_adam,
    ),
    *(
        Case(
            "Momentum",
            1,
            (*_STEP, *_STATE),
            {"alpha": 0.9, "beta": 0.8, "mode": mode, "norm_coefficient": 0.0},
            outputs=2,
            domain=_TRAINING,
            oracle=oracle,
        )
        for mode, oracle in (("standard", _polyak), ("nesterov", _nesterov))
    ),
]
