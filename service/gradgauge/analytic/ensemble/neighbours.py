"""Two layers in a row that are not independent: an activation under a max pool, a sum under BN.

Where a pool takes the largest of a rising function it takes the largest of its argument: gradients
arrive where a ReLU is open. And BatchNorm lets no gradient through that a whole batch has in
common, so of a matrix before it only what inputs differ in counts.
"""

from gradgauge.analytic.ensemble import maps
from gradgauge.analytic.ensemble.dense import activation
from gradgauge.analytic.ensemble.rules import Applied
from gradgauge.analytic.ensemble.state import State, Weight
from gradgauge.schema.spec import ActivationLayer
from gradgauge.schema.spec_maps import MaxPool

_RISING = frozenset(
    {
        "relu",
        "leaky_relu",
        "prelu",
        "clip",
        "elu",
        "selu",
        "celu",
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "softplus",
        "softsign",
        "erf",
        "exp",
    }
)


def pooled(
    phi: ActivationLayer, x: State, first: Applied, pool: MaxPool, second: Applied
) -> tuple[Applied, Applied]:
    """Both layers' steps, the pool's taken before the activation."""
    if phi.function not in _RISING:
        return first, second
    largest = maps.pool(pool, x, second.step.after.shape)
    after = activation(phi, largest.after)
    return (
        Applied(first.step._replace(back=after.back)),
        Applied(second.step._replace(after=after.after, notes=largest.notes)),
    )


def centred(x: State, held: Applied) -> Applied:
    """A weighted sum under BatchNorm."""
    weight = held.step.weight
    if weight is None or not weight.fan or x.q <= 0:
        return held
    own = max(x.q - x.u, 0.0) / x.q
    common = max(x.t - x.u, 0.0) / x.t if x.t > 0 else 0.0
    mended = Weight(weight.of_g * own, weight.of_t * common, weight.second, weight.fan)
    return held._replace(step=held.step._replace(weight=mended))
