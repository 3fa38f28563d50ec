"""What every stage of the sampled engine works on, and how it is split to fit the memory."""

import math
from dataclasses import dataclass, replace

import onnx_ir

from gradgauge.graph.layers import Layer
from gradgauge.graph.reading import Reading
from gradgauge.sampled.executor import Executable, compile_graph
from gradgauge.sampled.frame import Frame, Setting
from gradgauge.sampled.probes import Draws


@dataclass(frozen=True, slots=True)
class Measured:
    """One model under measurement: its layers, how its inputs stand and how passes are run."""

    model: onnx_ir.Model
    layers: tuple[Layer, ...]
    reading: Reading
    setting: Setting
    frame: Frame
    draws: Draws

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
