"""Named schemes, written out: the laws and scales they give to layers that say nothing themselves.

Each is a rewriting of the spec's text, so that counting and building know no schemes.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from gradgauge.errors import InvalidSpec
from gradgauge.schema.laws import InitKind, InitSpec
from gradgauge.schema.spec import ArchSpec, Dense, Gated, Parallel, Repeat, Residual, Scheme
from gradgauge.schema.spec_maps import Conv1d, Conv2d, Conv3d, ConvTranspose, DepthwiseConv
from gradgauge.schema.spec_tokens import Attention, Embedding, Gru, Lstm, Rnn

_CONVS = (Conv1d, Conv2d, Conv3d, ConvTranspose, DepthwiseConv)
_RECURRENT = (Rnn, Lstm, Gru)
_WEIGHTED = (Dense, Gated, Attention, *_CONVS, *_RECURRENT)
Layers = tuple[Any, ...]
Rewrite = Callable[[Any], Any]
_MANY = 10**9  # above every limit, and its powers are still numbers


def resolve(spec: ArchSpec) -> ArchSpec:
    """The spec with its scheme written out; the spec itself where it has none.

    Raises:
        InvalidSpec: the scheme cannot be applied to these layers.
    """
    scheme = spec.defaults.scheme
    if scheme is None:
        return spec
    layers = _SCHEMES[scheme.kind](spec.layers, scheme)
    defaults = spec.defaults.model_copy(update={"scheme": None})
    return spec.model_copy(update={"layers": layers, "defaults": defaults})


def _fixup(layers: Layers, scheme: Scheme) -> Layers:
    """Zhang, Dauphin & Ma 2019, rules 1 and 2: He's law, in branches times L^(-1 / (2m - 2))."""
    branches = sum(n for layer, n in _unrolled(layers) if isinstance(layer, Residual))

    def branch(layer: Any) -> Any:
        if not isinstance(layer, Residual):
            return _given(layer, weight=_law("he_normal"))
        m = sum(n * _matrices(inner) for inner, n in _unrolled(layer.layers))
        shrink = branches ** (-1 / (2 * m - 2)) if m > 1 else 1.0
        inner = _mapped(layer.layers, lambda x: _given(x, weight=_law("he_normal", shrink)))
        return layer.model_copy(update={"layers": _branch_ends_in_zero(layer.layers, inner)})

    made = _mapped(layers, branch, into_residuals=False)
    last = _last_weighted(made)
    if scheme.classifier == "keep" or last is None or not isinstance(made[last], _WEIGHTED):
        return made
    return _zeroed(layers, made, last)


def _matrices(layer: Any) -> int:
    """Weight matrices in a row along a layer: attention's value and output make two."""
    return (2 if isinstance(layer, Attention) else 1) if isinstance(layer, _WEIGHTED) else 0


def _branch_ends_in_zero(said: Layers, made: Layers) -> Layers:
    last = _last_weighted(made)
    if last is None:
        return made
    if isinstance(made[last], _WEIGHTED):
        return _zeroed(said, made, last)
    raise InvalidSpec(
        "scheme_mismatch",
        "fixup starts the last weighted layer of a residual at zero, and here it is in a "
        f"{made[last].type}",
        where="defaults.scheme",
        hint="write the residual's last layer out, behind it",
    )


def _last_weighted(layers: Layers) -> int | None:
    """The last layer with weights, or with layers inside that have some."""
    with_weights = [
        i
        for i, layer in enumerate(layers)
        if any(isinstance(inner, _WEIGHTED) for inner, _ in _unrolled((layer,)))
    ]
    return with_weights[-1] if with_weights else None


def _zeroed(said: Layers, made: Layers, i: int) -> Layers:
    """Layer `i` starts at zero, where its author has not said another law."""
    part = "output" if isinstance(made[i], Attention) else "weight"
    own = said[i].init.weight or getattr(said[i].init, part)
    last = made[i] if own else _with(made[i], {part: _law("zeros")})
    return (*made[:i], last, *made[i + 1 :])


def _rezero(layers: Layers, _: Scheme) -> Layers:
    """Bachlechner et al. 2020: every branch times a learned number that starts at 0."""

    def branch(layer: Any) -> Any:
        said = {"scale", "learned_scale"} & layer.model_fields_set
        if not isinstance(layer, Residual) or said:
            return layer
        return layer.model_copy(update={"scale": 0.0, "learned_scale": True})

    return _mapped(layers, branch)


def _t_fixup(layers: Layers, _: Scheme) -> Layers:
    """Huang et al. 2020: Xavier's law; values, outputs and the MLP scaled by depth.

    Tables: normal with standard deviation d^(-1/2), scaled as a decoder's.
    """
    stacks = _Stacks.of(layers)

    def scaled(layer: Any, *, decoder: bool) -> Any:
        n = max(stacks.decoder if decoder else stacks.encoder, 1)
        gain = (9 * n) ** -0.25 if decoder else 0.67 * n**-0.25
        if isinstance(layer, Embedding):
            deep = stacks.decoder or stacks.encoder
            std = (9 * deep) ** -0.25 / math.sqrt(layer.units)
            law = InitSpec(kind="normal", std=std)
            return layer if layer.init.weight else _with(layer, {"weight": law})
        return _branches(layer, "glorot_uniform", gain)

    return stacks.mapped(layers, scaled)


def _deepnorm(layers: Layers, _: Scheme) -> Layers:
    """Wang et al. 2022, figure 2: shortcuts times alpha; values, outputs, MLP with gain beta."""
    stacks = _Stacks.of(layers)

    def scaled(layer: Any, *, decoder: bool) -> Any:
        alpha, beta = stacks.deepnorm(decoder=decoder)
        if isinstance(layer, Residual) and "shortcut_scale" not in layer.model_fields_set:
            layer = layer.model_copy(update={"shortcut_scale": alpha})
        return _branches(layer, "glorot_normal", beta)

    return stacks.mapped(layers, scaled)


def _branches(layer: Any, kind: InitKind, gain: float) -> Any:
    """A residual whose branch's matrices are scaled, queries and keys left at gain 1."""
    if not isinstance(layer, Residual):
        return layer

    def inside(x: Any) -> Any:
        if isinstance(x, Attention):
            return _given(
                x,
                query=_law(kind),
                key=_law(kind),
                value=_law(kind, gain),
                output=_law(kind, gain),
            )
        return _given(x, weight=_law(kind, gain))

    return layer.model_copy(update={"layers": _mapped(layer.layers, inside)})


@dataclass(frozen=True, slots=True)
class _Stacks:
    """Transformer blocks by their self-attention, and where the decoder begins.

    A stack whose attention is causal is a decoder. `start` is the first of the spec's own layers
    that holds causal attention or a memory's.
    """

    encoder: int
    decoder: int
    start: int

    @classmethod
    def of(cls, layers: Layers) -> "_Stacks":
        counts, start = [0, 0], len(layers)
        for i, layer in enumerate(layers):
            for inner, n in _unrolled((layer,)):
                if isinstance(inner, Attention):
                    decodes = inner.causal or inner.memory is not None
                    start = min(start, i) if decodes else start
                    counts[i >= start] += 0 if inner.memory else n
        if not sum(counts):
            raise InvalidSpec(
                "scheme_mismatch",
                "the scheme is for transformers, and there is no self-attention",
                where="defaults.scheme",
                hint="fixup, rezero and mup take any network",
            )
        return cls(counts[0], counts[1], start)

    def mapped(self, layers: Layers, scaled: Callable[..., Any]) -> Layers:
        made: list[Any] = []
        for i, layer in enumerate(layers):
            decoder = i >= self.start or not self.encoder
            made += _mapped((layer,), partial(scaled, decoder=decoder))
        return tuple(made)

    def deepnorm(self, *, decoder: bool) -> tuple[float, float]:
        """(alpha, beta)."""
        n, m = self.encoder, self.decoder
        if not (n and m):
            return (2 * (n or m)) ** 0.25, (8 * (n or m)) ** -0.25
        if decoder:
            return (3 * m) ** 0.25, (12 * m) ** -0.25
        return 0.81 * (n**4 * m) ** (1 / 16), 0.87 * (n**4 * m) ** (-1 / 16)


def _mup(layers: Layers, scheme: Scheme) -> Layers:
    """Yang et al. 2021, table 3: hidden matrices 1/fan_in, the last 1/fan_in^2, logits 1/d."""
    gain = math.sqrt(scheme.base_width or 1)

    def hidden(layer: Any) -> Any:
        if isinstance(layer, Attention):
            said = {"scale", "scaling"} & layer.model_fields_set
            layer = layer if said else layer.model_copy(update={"scaling": "inverse"})
        return _given(layer, weight=_law("lecun_normal"))

    made = list(_mapped(layers, hidden))
    last = next((i for i in reversed(range(len(made))) if isinstance(made[i], _WEIGHTED)), None)
    if last is not None and layers[last].init.weight is None and isinstance(made[last], Dense):
        made[last] = _with(made[last], {"weight": _law("mup_output", gain)})
    return tuple(made)


_SCHEMES: dict[str, Callable[[Layers, Scheme], Layers]] = {
    "fixup": _fixup,
    "rezero": _rezero,
    "t-fixup": _t_fixup,
    "deepnorm": _deepnorm,
    "mup": _mup,
}


def _law(kind: InitKind, gain: float = 1.0) -> InitSpec:
    return InitSpec(kind=kind) if kind == "zeros" else InitSpec(kind=kind, gain=gain)


def _given(layer: Any, **laws: InitSpec) -> Any:
    """The layer with these laws where it says none; `weight` speaks for all of attention's."""
    if not isinstance(layer, _WEIGHTED) or layer.init.weight is not None:
        return layer
    init = layer.init
    return _with(layer, {part: law for part, law in laws.items() if getattr(init, part) is None})


def _with(layer: Any, laws: dict[str, InitSpec]) -> Any:
    return layer.model_copy(update={"init": layer.init.model_copy(update=laws)})


def _mapped(layers: Layers, rewrite: Rewrite, *, into_residuals: bool = True) -> Layers:
    """Every layer rewritten, those inside containers first."""

    def one(layer: Any) -> Any:
        if isinstance(layer, Repeat) or (isinstance(layer, Residual) and into_residuals):
            inner = _mapped(layer.layers, rewrite, into_residuals=into_residuals)
            layer = layer.model_copy(update={"layers": inner})
        elif isinstance(layer, Parallel):
            inner = tuple(
                _mapped(branch, rewrite, into_residuals=into_residuals) for branch in layer.branches
            )
            layer = layer.model_copy(update={"branches": inner})
        return rewrite(layer)

    return tuple(one(layer) for layer in layers)


def _unrolled(layers: Layers, times: int = 1) -> Iterator[tuple[Any, int]]:
    """Every layer, and how often it stands in the network."""
    for layer in layers:
        yield layer, times
        if isinstance(layer, Repeat):
            yield from _unrolled(layer.layers, min(times * layer.times, _MANY))
        elif isinstance(layer, Residual):
            yield from _unrolled(layer.layers, times)
        elif isinstance(layer, Parallel):
            for branch in layer.branches:
                yield from _unrolled(branch, times)
