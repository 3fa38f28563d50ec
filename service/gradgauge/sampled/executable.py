"""Run a compiled graph: node after node in torch, values freed after their last use."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradgauge.errors import AnalysisFailed, InvalidInput
from gradgauge.ops.row import Run
from gradgauge.sampled.budget import Budget, Spent, gathered
from gradgauge.sampled.program import Body, Edge, Piece, Step, every, pieces, with_dead
from gradgauge.sampled.recompute import forgetting
from gradgauge.sampled.siblings import joined
from gradgauge.sampled.tensors import Value, from_numpy

# what torch and the op table raise where inputs do not fit an op (torch's out-of-memory and
# missing-kernel errors are RuntimeErrors; sequences and strings lack a tensor's methods)
FAULTS = (RuntimeError, IndexError, ValueError, TypeError, AttributeError, ArithmeticError)
Replace = Callable[[str, Tensor], Tensor]
Taken = Callable[[Edge, Tensor], None]
Many = Callable[[Sequence[str], Tensor, Sequence[Tensor]], None]


class Executable:
    """A graph as a differentiable function of its inputs and its stored float initializers.

    `initializers` holds one leaf (requires_grad) per stored float initializer, by name; changing
    one in place changes the next run. `constants` holds the rest: integer initializers and Constant
    nodes' values; those named in `mapped` lie in files and take no memory. After a run with `watch`
    or `watch_edges` set, `watched` and `watched_edges` hold the tensors asked for, as they stand in
    that run's autograd graph.
    """

    def __init__(
        self,
        steps: list[Step],
        *,
        inputs: list[str],
        outputs: list[str],
        initializers: dict[str, Tensor],
        constants: dict[str, Tensor],
        mapped: frozenset[str] = frozenset(),
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.input_names = inputs
        self.output_names = outputs
        self.initializers = initializers
        self.constants = constants
        self.mapped = mapped
        self.watched: dict[str, Tensor] = {}
        self.watched_edges: dict[Edge, Tensor] = {}
        self._steps = with_dead(steps, outputs)
        self._dtype = dtype
        self._device = device
        self._budget = budget or Budget()
        self._watch: frozenset[str] = frozenset()
        self._edges: frozenset[Edge] = frozenset()
        self._taken: Taken | None = None
        self._replaced: frozenset[str] = frozenset()
        self._replace: Replace = _unchanged
        self._many: Many | None = None
        self._spent = Spent(self._budget)
        self._cuts: Sequence[int] = ()
        self._pieces: tuple[Piece, ...] = ()
        self._between: Callable[[int], None] | None = None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The graph's steps in the order they are run in, those of subgraphs within theirs."""
        return tuple(self._steps)

    @property
    def live_bytes(self) -> int:
        """Bytes of the values held at this point of a run whose budget counts them."""
        return self._spent.live

    def recompute(self, cuts: Sequence[int]) -> None:
        """Cut the steps before these places: a backward pass keeps what goes from piece to piece.

        What autograd keeps within a piece is let go and made again, by the same ops, when the
        backward pass arrives there. Without cuts everything is kept.
        """
        self._cuts = cuts
        self._pieces = pieces(self._steps, cuts) if cuts else ()

    def run_instead(self, runs: Mapping[str, Run]) -> None:
        """Run these nodes (none of a subgraph) by other functions of the same arguments."""
        self._steps = [replace(s, run=runs.get(s.node, s.run)) for s in self._steps]
        self.__dict__.pop("_joined", None)
        self.recompute(self._cuts)

    def watch_steps(self, between: Callable[[int], None] | None) -> None:
        """Call this with 0 before the next runs' first step and with 1, 2, ... after each."""
        self._between = between

    def limit(self, budget: Budget) -> None:
        """Hold the next runs to this budget instead."""
        self._budget = budget

    def watch(self, names: Iterable[str]) -> None:
        """Keep these values of the next runs in `watched`; replaces what was watched before.

        Raises:
            KeyError: the graph has no value of that name.
        """
        held = frozenset({*self.input_names, *self.initializers, *self.constants})
        self._watch = self._known(names, held)

    def intercept(self, names: Iterable[str], replace: Replace, many: Many | None = None) -> None:
        """Hand these node outputs to `replace(name, value)` and go on with what it returns.

        Where `many` is given, products of one stored matrix with slices of one value are made in
        one, and slices and products handed to `many(names, stacked, parts)` instead: slices without
        parts, as only what they are stacked in has a gradient; what is not asked for is named "".

        Raises:
            KeyError: no node makes a value of that name.
        """
        self._replaced = self._known(names, frozenset())
        self._replace = replace
        self._many = many

    def step(self, node: str) -> Step:
        """How a node of this name is run.

        Raises:
            KeyError: there is none.
        """
        for step in every(self._steps):
            if step.node == node:
                return step
        raise KeyError(node)

    @cached_property
    def made(self) -> frozenset[str]:
        """The names of all values that nodes make, those of subgraphs included."""
        return frozenset(name for step in every(self._steps) for name in step.outputs)

    def _known(self, names: Iterable[str], held: frozenset[str]) -> frozenset[str]:
        wanted = frozenset(names)
        for name in wanted - self.made - held if wanted else ():
            raise KeyError(f"the graph has no value named {name!r}")
        return wanted

    def watch_edges(self, edges: Iterable[Edge], taken: Taken | None = None) -> None:
        """Give each consumer an alias of its own of the input named, kept in `watched_edges`.

        Where `taken` is given, the aliases are handed to it instead and not kept.

        An edge is (the consuming node's first output that is not left out, the input's index), so
        that the gradient through that consumer can be told from the value's whole gradient.

        Raises:
            KeyError: the graph has no such edge.
        """
        wanted = frozenset(edges)
        for edge in wanted - self._all_edges if wanted else ():
            raise KeyError(f"the graph has no edge {edge!r}")
        self._edges = wanted
        self._taken = taken

    @cached_property
    def _all_edges(self) -> frozenset[Edge]:
        return frozenset(
            (step.key, index)
            for step in every(self._steps)
            for index, name in enumerate(step.inputs)
            if name is not None
        )

    def __call__(self, *inputs: Value, **named: Value) -> list[Any]:
        """The graph's outputs, in its order.

        Inputs are taken in the graph's order or by name and moved to the executable's device and,
        if floating, its dtype; gradients flow back through that. Tensors, but lists for sequences,
        None for an absent optional, and numpy arrays for element types torch lacks (strings,
        int2, uint2, int4, uint4, float4).

        Raises:
            InvalidInput: an input is missing, unknown or given twice.
            AnalysisFailed: an op could not run on its inputs (`execution_failed`).
            LimitExceeded: the budget is spent.
        """
        values = {**self.constants, **self.initializers, **self._bind(inputs, named)}
        self.watched = {name: values[name] for name in self._watch & values.keys()}
        self.watched_edges = {}
        self._spent = Spent(self._budget)
        self._spent.free(values[name] for name in self.mapped)
        self._spent.hold(values.values())
        if self._pieces:
            self._walk_pieces(values)
        elif self._between is None:
            self._walk(self._joined if self._joins() else self._steps, values)
        else:
            self._between(0)
            for place, step in enumerate(self._steps, 1):
                self._walk((step,), values)
                self._between(place)
        return [values[name] for name in self.output_names]

    @cached_property
    def _joined(self) -> list[Step]:
        return joined(self._steps, self.initializers, self.constants, self.output_names)

    def _joins(self) -> bool:
        """Whether slices and products are made in one: not where one of them is looked at apart."""
        if self._many is None or self._watch:
            return False
        return not self._edges or not any(
            (name, 0) in self._edges
            for step in self._joined
            for names in step.spread
            for name in names
        )

    def _walk_pieces(self, values: dict[str, Any]) -> None:
        """As `_walk`, piece by piece; a piece that is run again shows nothing to anyone."""
        for piece in self._pieces:
            taken = {name: values[name] for name in piece.takes}
            forgetting(
                partial(self._walk, piece.steps, values), partial(self._again, piece.steps, taken)
            )

    def _again(self, steps: Iterable[Step], taken: Mapping[str, Any]) -> None:
        held = dict(taken)
        for step in steps:
            self._replay(step, held)

    def _replay(self, step: Step, values: dict[str, Any]) -> None:
        arguments = [None if name is None else values[name] for name in step.inputs]
        bodies = {n: self._unseen(body, values) for n, body in step.bodies.items()}
        results = execute(step, arguments, bodies)
        values.update(zip(step.outputs, results, strict=False))
        for name in (*step.dead, ""):
            values.pop(name, None)

    def _unseen(self, body: Body, values: Mapping[str, Any]) -> Callable[..., list[Any]]:
        around = {name: values[name] for name in body.captures}

        def run(*inputs: Any) -> list[Any]:
            inner = {**around, **dict(zip(body.inputs, inputs, strict=True))}
            for step in body.steps:
                self._replay(step, inner)
            return [inner[name] for name in body.outputs]

        return run

    def _bind(self, inputs: tuple[Value, ...], named: Mapping[str, Value]) -> dict[str, Any]:
        given = dict(zip(self.input_names, inputs, strict=False))
        surplus = [name for name in named if name in given or name not in self.input_names]
        missing = [n for n in self.input_names if n not in given and n not in named]
        if len(inputs) > len(self.input_names) or surplus or missing:
            raise InvalidInput(
                "invalid_inputs",
                f"{len(inputs)} inputs given in order and {sorted(named)} by name",
                hint=f"the graph takes {self.input_names}, each once",
            )
        return {name: self._placed(x) for name, x in {**given, **named}.items()}

    def _placed(self, x: Value) -> Value:
        if isinstance(x, list):
            return [self._placed(v) for v in x]
        if isinstance(x, np.ndarray):
            x = from_numpy(x)
        if not isinstance(x, Tensor):
            return x
        return x.to(self._device, self._dtype if x.is_floating_point() else None)

    def _walk(self, steps: Iterable[Step], values: dict[str, Any]) -> None:
        """Run the steps over `values`, which gains their outputs and loses what is dead."""
        spent = self._spent
        if not spent.limited:
            for step in steps:
                if step.only:
                    self._run_only(step, values)
                else:
                    self._run_step(step, values)
                for name in step.dead:
                    values.pop(name, None)
            return
        for step in steps:
            spent.execution(step.node, step.op)
            if step.only:
                self._run_only(step, values)
            else:
                self._run_step(step, values)
            spent.held(step.node, step.op)
            spent.release([values.pop(name, None) for name in step.dead])

    def _run_only(self, step: Step, values: dict[str, Any]) -> None:
        """As `_run_step`, by the shortest way: a small op takes no longer than its bookkeeping."""
        arguments = [None if name is None else values[name] for name in step.inputs]
        if self._edges:
            self._alias(step, arguments)
        spent = self._spent
        if spent.limited:
            spent.ask(step.node, step.op, arguments, step.attributes)
        try:
            result = step.run(*arguments, **step.attributes)
        except FAULTS as fault:
            raise _failed(step, arguments, fault) from fault
        results = result if type(result) is tuple else (result,)
        name, kept = step.only, results[0]
        if name in self._replaced or name in self._watch:
            kept = self._kept(name, kept, arguments)
        values[name] = kept
        if spent.limited:
            spent.made(step.node, step.op, results)
            spent.hold((kept,))

    def _run_step(self, step: Step, values: dict[str, Any]) -> None:
        arguments = [None if name is None else values[name] for name in step.inputs]
        if self._edges:
            self._alias(step, arguments)
        self._spent.ask(step.node, step.op, arguments, step.attributes)
        piled: list[Any] = []
        bodies = {n: self._closure(step, body, values, piled) for n, body in step.bodies.items()}
        results = execute(step, arguments, bodies)
        self._spent.made(step.node, step.op, results)
        if step.spread:
            self._spread(step, results, values)
        for name, result in zip(step.outputs, results, strict=False):
            if name:
                values[name] = self._kept(name, result, arguments)
                self._spent.hold((values[name],))
        self._spent.release(piled)

    def _spread(self, step: Step, results: Sequence[Tensor], values: dict[str, Any]) -> None:
        """Hand on stacked slices and products; what reads a slice is among the products."""
        (slices, products), (taken, made) = step.spread, results
        parts = made.unbind(0)
        if self._many is not None:
            asked = self._replaced
            self._many([name if name in asked else "" for name in slices], taken, ())
            self._many([name if name in asked else "" for name in products], made, parts)
        values.update(zip(products, parts, strict=True))
        self._spent.hold(parts)

    def _closure(
        self, step: Step, body: Body, values: Mapping[str, Any], piled: list[Any]
    ) -> Callable[..., list[Any]]:
        """The subgraph as a function of its inputs, over the values around it as they are now.

        What of its outputs the op gathers run by run goes to `piled` too, counted as held.
        """
        around = {name: values[name] for name in body.captures}
        first = gathered(step.op, len(body.inputs), step.attributes)

        def run(*inputs: Any) -> list[Any]:
            self._spent.trip(step.node, step.op)
            self._spent.enter(step.node, step.op)
            inner = {**around, **dict(zip(body.inputs, inputs, strict=True))}
            self._spent.hold(inner.values())
            self._walk(body.steps, inner)
            outputs = [inner[name] for name in body.outputs]
            if first is not None:
                self._spent.hold(outputs[first:])
                piled.extend(outputs[first:])
            self._spent.leave(inner.values())
            return outputs

        return run

    def _kept(self, name: str, result: Any, arguments: list[Any]) -> Any:
        if name not in self._replaced and name not in self._watch:
            return result
        if not isinstance(result, Tensor):
            return result
        for x in arguments:
            if x is result:
                # an op may hand its input through; a value of its own has a gradient of its own
                result = result.view_as(result)
                break
        if name in self._replaced:
            result = self._replace(name, result)
        if name in self._watch:
            self.watched[name] = result
        return result

    def _alias(self, step: Step, arguments: list[Any]) -> None:
        for index, x in enumerate(arguments):
            edge = (step.key, index)
            if isinstance(x, Tensor) and edge in self._edges:
                arguments[index] = alias = x.view_as(x)
                if self._taken is None:
                    self.watched_edges[edge] = alias
                else:
                    self._taken(edge, alias)


def execute(
    step: Step,
    arguments: list[Any],
    bodies: Mapping[str, Callable[..., list[Any]]] | None = None,
) -> tuple[Any, ...]:
    """One node's outputs.

    Raises:
        AnalysisFailed: the op could not run on these inputs (`execution_failed`).
    """
    try:
        result = step.run(*arguments, **step.attributes, **(bodies or {}))
    except FAULTS as fault:
        raise _failed(step, arguments, fault) from fault
    results = result if isinstance(result, tuple) else (result,)
    if any(step.outputs[len(results) :]):
        raise AnalysisFailed(
            "execution_failed",
            f"{step.op} has {len(results)} outputs here, the node asks for {len(step.outputs)}",
            where=f"node {step.node}",
            op=step.op,
            hint="export the model again for evaluation, or with a later opset",
        )
    return results


def _failed(step: Step, arguments: list[Any], fault: BaseException) -> AnalysisFailed:
    shapes = ", ".join(_described(a) for a in arguments)
    return AnalysisFailed(
        "execution_failed",
        f"{step.op} failed on inputs ({shapes}): {_first_line(fault)}",
        where=f"node {step.node}",
        op=step.op,
        hint="check the node's inputs and attributes against the ONNX specification",
    )


def _unchanged(_name: str, value: Tensor) -> Tensor:
    return value


def _first_line(fault: BaseException) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__


def _described(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, list):
        return f"a sequence of {len(value)}"
    return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
