"""One Keras layer as the spec's layers, and what becomes of the value's axes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gradgauge.schema.keras_laws import activation, activation_layer, law
from gradgauge.schema.keras_recurrent import bidirectional, recurrent, wrapped
from gradgauge.schema.keras_steps import Json, Step, refused
from gradgauge.schema.keras_values import Made, Now, laws, size, turned

# layers that read their `activation` themselves
OWN_ACTIVATION = frozenset({"SimpleRNN", "LSTM", "GRU", "Activation", "Bidirectional"})


def translate(step: Step, now: Now) -> Made:
    """The layers of a step with one input.

    Raises:
        InvalidSpec: a spec has no such layer, or not with these settings.
    """
    if step.kind not in _RULES:
        raise refused(f"no translation of the layer {step.kind[:60]!r}", step.name)
    if step.config.get("data_format", "channels_last") not in ("channels_last", None):
        raise refused("channels first are not read", step.name, "save it with channels last")
    if now.pads is not None and step.kind not in _PADDED:
        raise refused(f"a ZeroPadding before a {step.kind[:60]}", step.name)
    if now.times is not None and step.kind not in ("SimpleRNN", "LSTM", "GRU", "Bidirectional"):
        raise refused(f"a RepeatVector before a {step.kind[:60]}", step.name)
    return _RULES[step.kind](step, now)


def attention(step: Step) -> Json:
    """A MultiHeadAttention over the steps."""
    config, d = step.config, size(step, "key_dim")
    if config.get("value_dim") not in (None, d) or config.get("use_gate"):
        raise refused("attention with values of another size than its keys, or a gate", step.name)
    units = config.get("output_shape")
    units = units[0] if isinstance(units, list) and len(units) == 1 else units
    layer: Json = {
        "type": "attention",
        "heads": size(step, "num_heads"),
        "head_dim": d,
        "bias": config.get("use_bias", True),
        "init": laws(step),
    }
    return layer if units is None else layer | {"units": units}


def _dense(step: Step, now: Now) -> Made:
    units, bias = size(step, "units"), step.config.get("use_bias", True)
    if now.rank <= 2:
        layers, now = turned(now, first=False)
        return [*layers, {"type": "dense", "units": units, "bias": bias, "init": laws(step)}], now
    layers, now = turned(now, first=True)
    more = {"filters": units, "kernel": 1, "bias": bias, "init": laws(step)}
    return [*layers, {"type": f"conv{now.rank - 1}d"} | more], now


def _window(step: Step, now: Now, kernel: str) -> tuple[list[Json], Json, Now]:
    """Kernel, stride and padding, with a ZeroPadding's in it, on channels first."""
    layers, now = turned(now, first=True)
    config = step.config
    padding = config.get("padding", "valid")
    if now.pads is not None:
        if padding != "valid":
            raise refused("a ZeroPadding before a layer that pads by itself", step.name)
        padding = list(now.pads)
    if padding not in ("same", "valid") and not isinstance(padding, list):
        raise refused(f"no translation of the padding {str(padding)[:60]!r}", step.name)
    fields = {"kernel": config.get(kernel), "stride": config.get("strides"), "padding": padding}
    said = {name: value for name, value in fields.items() if value is not None}
    return layers, said, replace(now, pads=None)


def _conv(step: Step, now: Now) -> Made:
    layers, fields, now = _convolution(step, now)
    layer = {"type": f"conv{now.rank - 1}d", "filters": size(step, "filters")}
    return [*layers, layer | {"groups": step.config.get("groups", 1)} | fields], now


def _conv_transpose(step: Step, now: Now) -> Made:
    layers, fields, now = _convolution(step, now)
    if step.config.get("output_padding") is not None:
        raise refused("a transposed convolution with output padding", step.name)
    return [*layers, {"type": "conv_transpose", "filters": size(step, "filters")} | fields], now


def _depthwise(step: Step, now: Now) -> Made:
    layers, fields, now = _convolution(step, now, "depthwise_initializer")
    layer = {"type": "depthwise_conv", "multiplier": step.config.get("depth_multiplier", 1)}
    return [*layers, layer | fields], now


def _convolution(
    step: Step, now: Now, kernel: str = "kernel_initializer"
) -> tuple[list[Json], Json, Now]:
    """What all convolutions say."""
    layers, fields, now = _window(step, now, "kernel_size")
    more = {
        "dilation": step.config.get("dilation_rate", 1),
        "bias": step.config.get("use_bias", True),
        "init": laws(step, kernel),
    }
    return layers, fields | more, now


def _separable(step: Step, now: Now) -> Made:
    """Each channel by itself, then all of them at each place; the bias is the second one's."""
    alone = replace(step, config=step.config | {"use_bias": False})
    layers, now = _depthwise(alone, now)
    point = {
        "type": f"conv{now.rank - 1}d",
        "filters": size(step, "filters"),
        "kernel": 1,
        "bias": step.config.get("use_bias", True),
        "init": laws(step, "pointwise_initializer"),
    }
    return [*layers, point], now


def _pool(step: Step, now: Now) -> Made:
    layers, fields, now = _window(step, now, "pool_size")
    kind = "max_pool" if step.kind.startswith("Max") else "avg_pool"
    return [*layers, {"type": kind} | fields], now


def _global_pool(step: Step, now: Now) -> Made:
    if step.config.get("keepdims"):
        raise refused("a global pool that keeps its axes", step.name)
    kind = "global_max_pool" if "Max" in step.kind else "global_avg_pool"
    if now.rank == 2:
        return [{"type": kind, "axis": now.channel}], Now(1)
    layers, _ = turned(now, first=True)
    return [*layers, {"type": kind}], Now(1)


def _padding(step: Step, now: Now) -> Made:
    """Kept for the next layer; both ends of an axis have to be padded alike."""
    given = step.config.get("padding")
    ends = given if isinstance(given, list) else [given]
    axes = [ends] if step.kind == "ZeroPadding1D" else ends
    alike = [_alike(axis) for axis in axes]
    if not alike or None in alike:
        raise refused("a ZeroPadding whose two ends differ", step.name, "pad by `same`")
    return [], replace(now, pads=tuple(p for p in alike if p is not None))


def _alike(ends: Any) -> int | None:
    """One number for both ends of an axis."""
    both = ends if isinstance(ends, list) and ends else [ends]
    return both[0] if type(both[0]) is int and all(e == both[0] for e in both) else None


def _batch_norm(step: Step, now: Now) -> Made:
    axis = step.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, now.rank):
        raise refused("a batch norm along another axis than the last", step.name)
    layers: list[Json] = []
    if now.rank > 2:
        layers, now = turned(now, first=True)
    where = {"axis": now.channel} if now.rank == 2 else {}
    return [*layers, {"type": "batch_norm"} | where | _norm(step)], now


def _norm(step: Step) -> Json:
    config = step.config
    parts = {"scale": ("scale", "gamma_initializer"), "bias": ("center", "beta_initializer")}
    init = {part: law(config.get(name), step.name) for part, (_, name) in parts.items()}
    has = {part: config.get(flag, True) for part, (flag, _) in parts.items()}
    said = {part: said for part, said in init.items() if said is not None}
    return {"epsilon": config.get("epsilon", 1e-3), "init": said} | has


def _layer_norm(step: Step, now: Now) -> Made:
    layers, now = turned(now, first=False)
    axis = step.config.get("axis", -1)
    if axis not in (-1, [-1], now.rank, [now.rank]):
        raise refused("a layer norm along another axis than the last", step.name)
    return [*layers, {"type": "layer_norm"} | _norm(step)], now


def _group_norm(step: Step, now: Now) -> Made:
    layers, now = turned(now, first=True)
    if step.config.get("axis", -1) not in (-1, now.rank):
        raise refused("a group norm along another axis than the last", step.name)
    return [*layers, {"type": "group_norm", "groups": size(step, "groups")} | _norm(step)], now


def _embedding(step: Step, now: Now) -> Made:
    table = law(step.config.get("embeddings_initializer"), step.name)
    layer = {
        "type": "embedding",
        "entries": size(step, "input_dim"),
        "units": size(step, "output_dim"),
        "init": {} if table is None else {"weight": table},
    }
    return [layer], Now(now.rank + 1)


def _time_distributed(step: Step, now: Now) -> Made:
    inner = wrapped(step)
    if inner.kind != "Dense" or now.rank != 2:
        raise refused("a TimeDistributed of another layer than Dense", step.name)
    layers, now = _dense(inner, now)
    return layers, now


def _reshape(step: Step, now: Now) -> Made:
    layers, _ = turned(now, first=False)
    shape = step.config.get("target_shape")
    if not isinstance(shape, list):
        raise refused("a Reshape without a shape", step.name)
    return [*layers, {"type": "reshape", "shape": shape}], Now(len(shape))


def _permute(step: Step, now: Now) -> Made:
    layers, now = turned(now, first=False)
    dims = step.config.get("dims")
    if not isinstance(dims, list) or not all(type(d) is int and d > 0 for d in dims):
        raise refused("a Permute without its axes", step.name)
    return [*layers, {"type": "permute", "axes": [d - 1 for d in dims]}], now


def _activation(step: Step, now: Now) -> Made:
    layer = activation_layer(step.kind, step.config, step.name)
    if layer is not None and layer["function"] == "softmax":
        layer["axis"] = now.channel
    return [layer] if layer else [], now


def _named_activation(step: Step, now: Now) -> Made:
    layer = activation(step.config.get("activation"), step.name)
    if layer is not None and layer["function"] in ("softmax", "log_softmax"):
        layer["axis"] = now.channel
    return [layer] if layer else [], now


def _dropout(step: Step, now: Now) -> Made:
    rate = step.config.get("rate", 0.0)
    return [{"type": "dropout", "rate": rate}] if rate else [], now


def _nothing(_: Step, now: Now) -> Made:
    return [], now


def _repeat_vector(step: Step, now: Now) -> Made:
    return [], replace(now, times=size(step, "n"))


def _flatten(_: Step, now: Now) -> Made:
    return ([{"type": "flatten"}] if now.rank > 1 else []), Now(1)


_AXES = ("1D", "2D", "3D")
_RULES: dict[str, Callable[[Step, Now], Made]] = {
    "Dense": _dense,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "RepeatVector": _repeat_vector,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "Embedding": _embedding,
    "SimpleRNN": recurrent,
    "LSTM": recurrent,
    "GRU": recurrent,
    "Bidirectional": bidirectional,
    "TimeDistributed": _time_distributed,
    "Activation": _named_activation,
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "Softmax"), _activation),
    **dict.fromkeys(("Dropout", "AlphaDropout", "GaussianDropout"), _dropout),
    **dict.fromkeys((f"SpatialDropout{n}" for n in _AXES), _dropout),
    **dict.fromkeys(("GaussianNoise", "ActivityRegularization", "Identity"), _nothing),
    **dict.fromkeys((f"Conv{n}" for n in _AXES), _conv),
    **dict.fromkeys((f"Conv{n}Transpose" for n in _AXES), _conv_transpose),
    **dict.fromkeys((f"DepthwiseConv{n}" for n in _AXES), _depthwise),
    **dict.fromkeys((f"SeparableConv{n}" for n in _AXES), _separable),
    **dict.fromkeys((f"MaxPooling{n}" for n in _AXES), _pool),
    **dict.fromkeys((f"AveragePooling{n}" for n in _AXES), _pool),
    **dict.fromkeys((f"GlobalMaxPooling{n}" for n in _AXES), _global_pool),
    **dict.fromkeys((f"GlobalAveragePooling{n}" for n in _AXES), _global_pool),
    **dict.fromkeys((f"ZeroPadding{n}" for n in _AXES), _padding),
}
_PADDED = frozenset(
    f"{kind}{n}" for kind in ("Conv", "DepthwiseConv", "SeparableConv", "MaxPooling") for n in _AXES
)
