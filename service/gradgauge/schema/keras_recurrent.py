"""Keras's recurrent layers as a spec's."""

from dataclasses import replace

from gradgauge.schema.keras_steps import Json, Step, refused
from gradgauge.schema.keras_values import Made, Now, laws, size, turned


def recurrent(step: Step, now: Now) -> Made:
    """SimpleRNN, LSTM or GRU, over [time, features] or a repeated vector."""
    layers, now = turned(now, first=False)
    layer = _recurrence(step)
    if now.times is not None:
        layer["time_steps"] = now.times
    return [*layers, layer], Now(2 if layer["return_sequences"] else 1)


def _recurrence(step: Step) -> Json:
    config, kind = step.config, step.kind
    if kind not in _CELLS:
        raise refused(f"no translation of the recurrent layer {kind[:60]!r}", step.name)
    for name in ("go_backwards", "return_state"):
        if config.get(name):
            raise refused(f"a recurrent layer with {name}", step.name)
    gate = config.get("recurrent_activation", "sigmoid")
    phi = config.get("activation", "tanh")
    if (kind != "SimpleRNN" and gate != "sigmoid") or phi not in ("tanh", "relu"):
        raise refused("a recurrent layer with other activations", step.name)
    layer = {
        "type": _CELLS[kind],
        "units": size(step, "units"),
        "activation": phi,
        "bias": config.get("use_bias", True),
        "recurrent_bias": False,
        "return_sequences": config.get("return_sequences", False),
        "init": laws(step),
    }
    if kind == "GRU":
        after = config.get("reset_after", True)
        layer |= {"reset_after": after, "recurrent_bias": after}
    if kind == "LSTM" and config.get("unit_forget_bias", True) and layer["bias"]:
        layer["forget_bias"] = 1.0
    return layer


_CELLS = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru"}


def wrapped(step: Step) -> Step:
    """The layer a wrapper holds."""
    held = step.config.get("layer")
    if not isinstance(held, dict) or not isinstance(held.get("config"), dict):
        raise refused(f"a {step.kind} without a layer", step.name)
    return replace(step, kind=str(held.get("class_name")), config=held["config"])


def bidirectional(step: Step, now: Now) -> Made:
    """A recurrent layer in both directions, side by side."""
    if step.config.get("merge_mode", "concat") != "concat":
        raise refused("two directions merged otherwise than side by side", step.name)
    layers, now = recurrent(wrapped(step), now)
    layers[-1]["bidirectional"] = True
    return layers, now
