"""A Hugging Face configuration read field by field, and the layers its families share."""

from typing import Any

from gradgauge.errors import InvalidSpec
from gradgauge.schema.strict import nearest

Json = dict[str, Any]
TOKENS = 128


class Config:
    """A configuration, its fields checked as they are read."""

    def __init__(self, fields: Json) -> None:
        self.fields = fields

    def size(self, name: str, default: int | None = None) -> int:
        """A whole number above zero."""
        value = self.fields.get(name)
        value = default if value is None else value
        if type(value) is not int or not 0 < value < 1 << 31:
            raise refused(name, f"must be a whole number from 1 on, not {str(value)[:60]}")
        return value

    def number(self, name: str, default: float) -> float:
        """A number from zero on."""
        value = self.fields.get(name)
        value = default if value is None else value
        if type(value) not in {int, float} or not 0 <= value <= 1e9:
            raise refused(name, f"must be a number from 0 on, not {str(value)[:60]}")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.fields.get(name)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise refused(name, f"must be true or false, not {str(value)[:60]}")
        return value

    def text(self, *names: str) -> str | None:
        """The first of `names` that holds words."""
        found = (self.fields.get(name) for name in names)
        return next((v[:200] for v in found if isinstance(v, str) and v), None)

    def head(self, known: dict[str, str]) -> str:
        """What the first of `architectures` puts on top; "" for the bare model."""
        listed = self.fields.get("architectures")
        if not isinstance(listed, list) or not listed:
            return ""
        name = str(listed[0])[:60]
        if name not in known:
            raise refused("architectures", f"no translation of {name!r}", nearest(name, known))
        return known[name]

    def labels(self) -> int:
        """Classes of a classifier: transformers has two where none are named."""
        names = self.fields.get("id2label")
        return len(names) if isinstance(names, dict) and names else self.size("num_labels", 2)

    def tokens(self, positions: str, default: int) -> int:
        """Tokens to read the model at: `TOKENS`, or as many as it has positions."""
        return min(TOKENS, self.size(positions, default))

    def activation(self, name: str, default: str) -> Json:
        """A function, named as transformers names it, as a layer."""
        word = self.text(name) or default
        if word not in ACTIVATIONS:
            raise refused(name, f"no translation of {word!r}", nearest(word, ACTIVATIONS))
        return {"type": "activation"} | ACTIVATIONS[word]


ACTIVATIONS: dict[str, Json] = {
    "relu": {"function": "relu"},
    "gelu": {"function": "gelu"},
    "gelu_new": {"function": "gelu", "approximate": "tanh"},
    "gelu_pytorch_tanh": {"function": "gelu", "approximate": "tanh"},
    "gelu_fast": {"function": "gelu", "approximate": "tanh"},
    "quick_gelu": {"function": "swish", "alpha": 1.702},
    "silu": {"function": "swish"},
    "swish": {"function": "swish"},
    "tanh": {"function": "tanh"},
}


def refused(field: str, message: str, hint: str | None = None) -> InvalidSpec:
    """The error of a field whose value has no translation."""
    return InvalidSpec("bad_value", message, where=field, hint=hint)


def normal(std: float) -> Json:
    """A normal law, or zeros where its standard deviation is 0."""
    return {"kind": "normal", "std": std} if std > 0 else {"kind": "zeros"}


def defaults(std: float) -> Json:
    """One law for all matrices and tables."""
    return {"init": {"weight": normal(std), "embedding": normal(std)}}


def integers(tokens: int, vocabulary: int) -> Json:
    """An input of token numbers."""
    return {"shape": [tokens], "distribution": "integers", "low": 0, "high": vocabulary}


def dropout(rate: float) -> list[Json]:
    """A dropout, or nothing where its rate is 0."""
    return [{"type": "dropout", "rate": rate}] if 0 < rate < 1 else []


def residual(*layers: Json) -> Json:
    """The layers as a branch that is added to its input."""
    return {"type": "residual", "layers": list(layers)}


def feed_forward(units: int, activation: Json, features: int, **more: Any) -> list[Json]:
    """Two dense layers with a function between them."""
    return [
        {"type": "dense", "units": units} | more,
        activation,
        {"type": "dense", "units": features} | more,
    ]


def language_head(given: Config, vocabulary: int, *, bias: bool = False, tied: bool = True) -> Json:
    """A language model's last layer; `tied` is the family's own default."""
    if given.flag("tie_word_embeddings", default=tied):
        return {"type": "unembedding", "bias": bias}
    return {"type": "dense", "units": vocabulary, "bias": bias}
