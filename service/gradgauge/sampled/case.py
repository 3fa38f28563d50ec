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
from gradgauge.sampled.memory import scarce
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
        """The same with so few inputs a pass, and so many of its values made twice, as will fit.

        More draws make up for fewer inputs. Batch statistics are never taken of one input alone.
        """
        courses, dtype = self.frame.courses, self.setting.dtype
        if self.draws.batch is None:
            cuts = courses.cuts(memory, self.frame.rows, dtype)
            return replace(self, setting=replace(self.setting, cuts=cuts))
        least = 2 if self.reading.batch_statistics else 1
        fitting = courses.fitting(memory, dtype, self.draws.batch)
        if fitting < self.draws.batch:
            fitting = 1 << (fitting.bit_length() - 1)  # so that as many draws more make up for it
        batch = min(self.draws.batch, max(least, fitting))
        more = self.draws.batch / batch
        draws = Draws(batch, math.ceil(self.draws.count * more), math.ceil(self.draws.most * more))
        cuts = courses.cuts(memory, batch, dtype)
        return replace(
            self,
            draws=draws,
            setting=replace(self.setting, batch=batch, cuts=cuts),
            frame=replace(self.frame, rows=batch),
        )

    @property
    def scarce(self) -> bool:
        """Whether memory that a pass lets go has to go back at once."""
        course = self.frame.courses.of(self.frame.rows, self.setting.dtype)
        return scarce(self.setting.budget, course.whole)


def compiled(model: onnx_ir.Model, reading: Reading, setting: Setting) -> Executable:
    """The model as the reading asks for it, in the setting's number type and place."""
    exe = compile_graph(
        model,
        training=reading.batch_statistics,
        dtype=setting.dtype,
        device=setting.device,
        budget=setting.budget,
    )
    exe.recompute(setting.cuts)
    return exe


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
