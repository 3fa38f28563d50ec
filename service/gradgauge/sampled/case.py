"""What every stage of the sampled engine works on, and how it is split to fit the memory."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir

from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import Executable, compile_graph
from gradgauge.sampled.frame import Frame, Setting
from gradgauge.sampled.probes import Draws
from gradgauge.schema.profile import Measurement, Series


@dataclass(frozen=True, slots=True)
class Measured:
    """One model under measurement: its layers, how its inputs stand and how passes are run."""

    model: onnx_ir.Model
    layers: tuple[Layer, ...]
    reading: Reading
    setting: Setting
    frame: Frame
    draws: Draws

    def small(self, batch: int) -> "Measured":
        """The same with at most so many inputs a pass."""
        if self.setting.batch is None or self.setting.batch <= batch:
            return self
        setting = replace(self.setting, batch=batch)
        return replace(self, setting=setting, frame=replace(self.frame, rows=batch))

    def within(self, memory: int) -> "Measured":
        """The same with batches so small that autograd keeps no more bytes than given.

        More draws make up for it. Batch statistics are never taken of one input alone.
        """
        if self.draws.batch is None:
            return self
        least = 2 if self.reading.batch_statistics else 1
        fitting = max(least, self.frame.fitting(memory, self.setting.dtype))
        batch = min(self.draws.batch, fitting)
        more = self.draws.batch / batch
        draws = Draws(batch, math.ceil(self.draws.count * more), math.ceil(self.draws.most * more))
        return replace(
            self,
            draws=draws,
            setting=replace(self.setting, batch=batch),
            frame=replace(self.frame, rows=batch),
        )


def compiled(model: onnx_ir.Model, reading: Reading, setting: Setting) -> Executable:
    """The model as the reading asks for it, in the setting's number type and place."""
    return compile_graph(
        model,
        training=reading.batch_statistics,
        dtype=setting.dtype,
        device=setting.device,
        budget=setting.budget,
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What a stage adds to the profile; `layers` are changes to fields, by layer id."""

    measurements: tuple[Measurement, ...] = ()
    series: tuple[Series, ...] = ()
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def told(
    name: str,
    value: float | None,
    unit: str,
    note: str | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
) -> Measurement:
    """A measurement of this engine; what is not finite is unknown."""
    held = [v if v is not None and math.isfinite(v) else None for v in (value, low, high)]
    return Measurement(name, held[0], unit, "sampled", held[1], held[2], note)


def curve(name: str, unit: str, y: Sequence[float | None], x: Sequence[float] = ()) -> Series:
    """A curve without intervals, over 0, 1, 2, ... where no x is given."""
    held = tuple(v if v is not None and math.isfinite(v) else None for v in y)
    blank = (None,) * len(held)
    return Series(name, unit, tuple(x) or tuple(map(float, range(len(held)))), held, blank, blank)
