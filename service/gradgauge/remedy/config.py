"""Remedies that change how a network is trained or fed, and leave its weights alone."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from gradgauge.assess import Assessment
from gradgauge.graph.init import Law
from gradgauge.graph.kinds import FLOATS
from gradgauge.graph.layers import Layer, parameters
from gradgauge.graph.reading import InputPlan
from gradgauge.remedy.norms import behind
from gradgauge.remedy.patch import Change, Insert, Patch, Store
from gradgauge.remedy.places import held as stored
from gradgauge.remedy.places import value_of
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.snippets import at
from gradgauge.sampled.trial import Trial
from gradgauge.schema.report import Finding

USUAL = 0.1  # SGD's learning rate where nobody names one
FAR = (0.3, 3.0)  # deviations of an input outside which it is standardised
LEFT = 1e-3  # share of the gradient that a truncation may leave out


def rate_of(assessment: Assessment) -> float:
    """The learning rate asked for, else a usual one."""
    wish = assessment.plan.wish
    return wish.lr if wish is not None and wish.lr is not None else USUAL


def _measured(assessment: Assessment, name: str) -> float | None:
    rows = assessment.sampled.measurements if assessment.sampled is not None else ()
    return next((m.value for m in rows if m.name == name and m.value is not None), None)


def _rounded(value: float) -> float:
    """To two digits, which is as much as such a setting is known to."""
    return float(f"{value:.1e}")


def gradient_norm(assessment: Assessment) -> float | None:
    """Median 2-norm of the whole gradient, from the sampled quantiles of each parameter layer."""
    held = assessment.sampled.layers if assessment.sampled is not None else {}
    squares = []
    for layer in assessment.layers:
        row = held.get(layer.id)
        middle = row.log10_grad_param.q50 if row is not None and row.log10_grad_param else None
        if middle is not None and layer.params and middle < 150:
            squares.append(stored(layer.params[0], assessment).size * 10.0 ** (2 * middle))
    return math.sqrt(sum(squares)) if squares else None


def _threshold(assessment: Assessment) -> float:
    """The median norm where that is below 1: then only outliers are cut."""
    return _rounded(min(1.0, gradient_norm(assessment) or 1.0))


def _check_clip(assessment: Assessment, _finding: Finding) -> str | None:
    if gradient_norm(assessment) is None:
        return "no parameter's gradient was sampled"
    return None


def _clip_snippets(a: Assessment, _f: Finding, _layers: Sequence[Layer]) -> Mapping[str, str]:
    bound = f"{_threshold(a):g}"
    return at(
        (),
        f"nn.utils.clip_grad_norm_(model.parameters(), {bound})  # between backward and step",
        f"optimizer = keras.optimizers.SGD(learning_rate, global_clipnorm={bound})",
        f"optimizer = optax.chain(optax.clip_by_global_norm({bound}), optax.sgd(learning_rate))",
    )


def _edge(assessment: Assessment) -> float | None:
    return _measured(assessment, "ntk_edge_of_stability_lr")


def _rate(assessment: Assessment) -> float:
    """Half of the edge of stability: the middle of what gradient descent takes."""
    return _rounded((_edge(assessment) or 0.0) / 2)


def _check_rate(assessment: Assessment, _finding: Finding) -> str | None:
    edge = _edge(assessment)
    if edge is None:
        return "the tangent kernel's largest eigenvalue was not measured: profile standard does"
    if edge >= 2 * rate_of(assessment):
        return f"a learning rate of {rate_of(assessment):g} is below half the edge of stability"
    return None


def _rate_snippets(a: Assessment, _f: Finding, _layers: Sequence[Layer]) -> Mapping[str, str]:
    rate = f"{_rate(a):g}"
    return at(
        (),
        f"optimizer = torch.optim.SGD(model.parameters(), lr={rate})\n"
        "warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=500)",
        f"rate = keras.optimizers.schedules.CosineDecay(\n"
        f"    0.0, decay_steps=100_000, warmup_target={rate}, warmup_steps=500)\n"
        "optimizer = keras.optimizers.SGD(rate)",
        f"rate = optax.linear_schedule(0.1 * {rate}, {rate}, 500)\noptimizer = optax.sgd(rate)",
    )


def _scale(assessment: Assessment) -> float | None:
    return _measured(assessment, "loss_scale_fp16")


def _underflows(assessment: Assessment) -> float:
    held = assessment.sampled.layers.values() if assessment.sampled is not None else ()
    return max((layer.underflow.get("fp16", 0.0) for layer in held), default=0.0)


def _check_scale(assessment: Assessment, _finding: Finding) -> str | None:
    scale = _scale(assessment)
    if scale is None:
        return "fp16 was not asked for: option target_dtypes does"
    if scale <= 1.0 or _underflows(assessment) < 0.01:
        return "less than 1 % of any layer's gradient underflows in fp16"
    return None


def _scale_snippets(a: Assessment, _f: Finding, _layers: Sequence[Layer]) -> Mapping[str, str]:
    scale = f"{_scale(a) or 1.0:g}"
    return at(
        (),
        f"scaler = torch.amp.GradScaler(init_scale={scale})\n"
        "# or, with float32's range and no scale: torch.autocast(device, dtype=torch.bfloat16)",
        f"optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale={scale})\n"
        "# or, with float32's range and no scale: keras.config.set_dtype_policy('mixed_bfloat16')",
        f"loss_scale = {scale}  # multiply the loss, divide the gradients\n"
        "# or, with float32's range and no scale: jnp.bfloat16",
    )


def _horizon(assessment: Assessment, finding: Finding) -> tuple[float, int] | None:
    """The memory horizon of a recurrence at the origins, and the steps it was run over."""
    names = {layer.name for layer in assessment.layers if layer.id in finding.origins}
    times = assessment.sampled.times if assessment.sampled is not None else ()
    steps = max((len(t.log10_grad) for t in times), default=0)
    held = [_measured(assessment, f"memory_horizon:{name}") for name in sorted(names)]
    known = [h for h in held if h is not None]
    return (max(known), steps) if known and steps else None


def _length(assessment: Assessment, finding: Finding) -> int:
    """Steps until LEFT of the gradient is left: with the horizon h, -ln(LEFT) h."""
    horizon, _ = _horizon(assessment, finding) or (1.0, 1)
    return max(1, math.ceil(-math.log(LEFT) * horizon))


def _check_truncation(assessment: Assessment, finding: Finding) -> str | None:
    found = _horizon(assessment, finding)
    if found is None:
        return "no memory horizon was measured: profile standard does where gradients decay"
    if _length(assessment, finding) >= found[1]:
        return f"the gradient reaches across all {found[1]} steps"
    return None


def _truncation_snippets(a: Assessment, f: Finding, layers: Sequence[Layer]) -> Mapping[str, str]:
    length = _length(a, f)
    return at(
        layers,
        f"for part in x.split({length}, dim=1):\n    y, h = rnn(part, h)\n"
        "    loss_of(y).backward()\n    h = h.detach()  # of an LSTM both h and c",
        f"layer.stateful = True  # and feed sequences in parts of {length} steps",
        f"h = jax.lax.stop_gradient(h)  # every {length} steps",
    )


def _off(assessment: Assessment) -> list[InputPlan]:
    """Float inputs with data of another scale or place than a standard one."""
    found = []
    for plan in assessment.reading.inputs.values():
        if plan.data is None or plan.dtype not in FLOATS:
            continue
        mean, deviation = _moments(plan)
        near = FAR[0] <= deviation <= FAR[1] and abs(mean) <= deviation
        if deviation > 0.0 and not near and not _is_output(plan.name, assessment):
            found.append(plan)
    return found


def _is_output(name: str, assessment: Assessment) -> bool:
    return value_of(name, assessment).is_graph_output()


def _moments(plan: InputPlan) -> tuple[float, float]:
    if plan.data is None:
        raise AssertionError("unreachable")
    x = plan.data.astype(np.float64)
    return float(x.mean()), float(x.std())


def _check_standard(assessment: Assessment, _finding: Finding) -> str | None:
    if not any(plan.data is not None for plan in assessment.reading.inputs.values()):
        return "no data were given: what is drawn is standard already"
    if not _off(assessment):
        return "the data have about mean 0 and deviation 1 already"
    if not parameters(assessment.graph.model.graph):
        return "the model stores no parameters"
    return None


def _standardised(assessment: Assessment, _finding: Finding) -> Patch:
    like = next(iter(parameters(assessment.graph.model.graph)))
    changes: list[Change] = []
    for plan in _off(assessment):
        mean, deviation = _moments(plan)
        made = f"{plan.name}.gradgauge.standard"
        names = (f"{made}.mean", f"{made}.deviation", f"{made}.centred")
        changes += [
            Store(names[0], Law("constant", (1,), value=mean), 0, like),
            Store(names[1], Law("constant", (1,), value=deviation), 0, like),
            Insert("Sub", (plan.name, names[0]), names[2]),
            Insert("Div", (names[2], names[1]), made),
            *behind(plan.name, made, assessment),
        ]
    return tuple(changes)


def _standard_snippets(a: Assessment, _f: Finding, _layers: Sequence[Layer]) -> Mapping[str, str]:
    lines = "\n".join(
        f"x = (x - {mean:.6g}) / {deviation:.6g}  # the data given for {plan.name!r}"
        for plan in _off(a)
        for mean, deviation in [_moments(plan)]
    )
    return at((), lines, lines, lines)


CLIP = Remedy(
    action="clip_gradients",
    answers=frozenset({"GF102", "GF104"}),
    cost="config",
    does="clips the gradient's 2-norm over all parameters at the sampled median, at most 1",
    rationale=(
        "a step no longer than the threshold allows stays where the loss's slope still holds, "
        "however large the gradient is; its direction is kept"
    ),
    side_effects=("the relative sizes of the layers' gradients stay as uneven as they were",),
    references=("Pascanu, Mikolov & Bengio 2013", "Zhang et al. 2020, Why gradient clipping"),
    check=_check_clip,
    title=lambda a, _f: f"Clip the gradient's norm at {_threshold(a):g}",
    targets=lambda _a, _f: (),
    snippets=_clip_snippets,
    recipe=lambda a, _f: Trial(rate_of(a), _threshold(a)),
    is_setting=True,
)
LEARNING_RATE = Remedy(
    action="learning_rate",
    answers=frozenset({"GF102", "GF104"}),
    cost="config",
    does="sets SGD's learning rate to half the tangent kernel's edge of stability, with a warm-up",
    rationale=(
        "gradient descent diverges along the tangent kernel's leading direction from a learning "
        "rate of 2 over its largest eigenvalue on"
    ),
    side_effects=("the other directions are learnt the more slowly",),
    references=("Jacot, Gabriel & Hongler 2018", "Cohen et al. 2021, Edge of stability"),
    check=_check_rate,
    title=lambda a, _f: f"Lower SGD's learning rate to {_rate(a):g} and warm it up",
    targets=lambda _a, _f: (),
    snippets=_rate_snippets,
    recipe=lambda a, _f: Trial(_rate(a)),
    is_setting=True,
)
LOSS_SCALE = Remedy(
    action="loss_scale",
    answers=frozenset({"GF101", "GF103"}),
    cost="config",
    does="multiplies the loss so that gradients stay above fp16's smallest number, or uses bf16",
    rationale=(
        "gradients below fp16's smallest number are zeros; multiplied by a power of two they are "
        "not, and dividing it out again costs nothing"
    ),
    side_effects=("a scale too large overflows: let it adapt",),
    references=("Micikevicius et al. 2018",),
    check=_check_scale,
    title=lambda a, _f: f"Scale the loss by {_scale(a) or 1.0:g} in fp16, or train in bf16",
    targets=lambda _a, _f: (),
    snippets=_scale_snippets,
    is_setting=True,
)
TRUNCATION = Remedy(
    action="truncate_steps",
    answers=frozenset({"GF103"}),
    cost="config",
    does="cuts backpropagation through time where a thousandth of the gradient is left",
    rationale=(
        "behind the memory horizon the gradient carries nothing that training could use; cutting "
        "it there saves the time and memory it takes"
    ),
    side_effects=("what lies further back is not learnt, as it was not before",),
    references=("Williams & Peng 1990", "Tallec & Ollivier 2017"),
    check=_check_truncation,
    title=lambda a, f: f"Truncate backpropagation through time at {_length(a, f)} steps",
    targets=lambda _a, f: tuple(f.origins),
    snippets=_truncation_snippets,
    is_setting=True,
)
STANDARDISE = Remedy(
    action="standardise_input",
    answers=frozenset({"GF101", "GF102", "GF201", "GF202", "GF301"}),
    cost="config",
    does="takes the data's mean off the input and divides by their deviation",
    rationale=(
        "initial laws assume inputs of mean 0 and variance 1; of another scale they drive the "
        "first layer's units to their ends, or inflate every layer"
    ),
    side_effects=("the same must be done wherever the network is used",),
    references=("LeCun et al. 1998, Efficient backprop, section 4.3",),
    check=_check_standard,
    rewrite=_standardised,
    title=lambda a, _f: f"Standardise {', '.join(repr(plan.name) for plan in _off(a))}",
    targets=lambda _a, _f: (),
    snippets=_standard_snippets,
)
