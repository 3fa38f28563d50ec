"""A remedy as code for PyTorch, Keras and JAX, naming the user's own layers."""

from collections.abc import Mapping, Sequence
from textwrap import indent

from gradgauge.graph.layers import Layer

FRAMEWORKS = ("pytorch", "keras", "jax")
MOST = 8  # names a snippet spells out
_EACH = {
    "pytorch": "layer = model.get_submodule(name)",
    "keras": "layer = model.get_layer(name)",
    "jax": 'layer = params[name]  # {"kernel": ..., "bias": ...}',
}


def module(layer: Layer) -> str:
    """The path torch knows the module by, on one line."""
    path = layer.scope.strip("/").replace("/", ".")
    return "".join(c if c.isprintable() else "?" for c in path)


def names_of(layers: Sequence[Layer]) -> str:
    """The layers' paths as a list of Python strings."""
    return f"[{', '.join(repr(module(layer)) for layer in layers[:MOST])}]"


def per_layer(
    layers: Sequence[Layer], pytorch: str, keras: str, jax: str, *, first: str = ""
) -> Mapping[str, str]:
    """A loop over the named layers; each body knows one as `layer`."""
    more = "  # and so on" if len(layers) > MOST else ""
    bodies = dict(zip(FRAMEWORKS, (pytorch, keras, jax), strict=True))
    opening = f"# {first}\n" if first else ""
    return {
        key: (
            f"{opening}for name in {names_of(layers)}:{more}\n"
            f"    {_EACH[key]}\n{indent(body, '    ')}"
        )
        for key, body in bodies.items()
    }


def at(layers: Sequence[Layer], pytorch: str, keras: str, jax: str) -> Mapping[str, str]:
    """Code that stands alone, under a line that says where it belongs."""
    more = " and so on" if len(layers) > MOST else ""
    where = f"# at {', '.join(module(layer) for layer in layers[:MOST])}{more}\n" if layers else ""
    bodies = zip(FRAMEWORKS, (pytorch, keras, jax), strict=True)
    return {key: where + body for key, body in bodies}
