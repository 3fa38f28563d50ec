"""The remedies: one row each, in the order in which equally cheap ones are tried."""

from typing import Final

from gradgauge.remedy.activation import LEAKY, SWAP
from gradgauge.remedy.attention import LOGIT_SCALE, QK_NORM
from gradgauge.remedy.config import CLIP, LEARNING_RATE, LOSS_SCALE, STANDARDISE, TRUNCATION
from gradgauge.remedy.gates import CHRONO, FORGET_BIAS
from gradgauge.remedy.initial import BREAK_SYMMETRY, GLOROT, HE, LECUN, ORTHOGONAL, ZERO_BIAS
from gradgauge.remedy.norms import BATCH_NORM, LAYER_NORM, RMS_NORM
from gradgauge.remedy.optimizer import ADAM
from gradgauge.remedy.outlier import REDRAW_OUTLIER
from gradgauge.remedy.recurrent import (
    IDENTITY,
    IRNN,
    ORTHOGONAL_RECURRENCE,
    TO_GRU,
    TO_LSTM,
)
from gradgauge.remedy.rescale import BALANCE, MEND, RESCALE
from gradgauge.remedy.residual import FIXUP, PRE_NORM, REZERO, SCALE_RESIDUAL
from gradgauge.remedy.row import Remedy
from gradgauge.remedy.skip import SKIP
from gradgauge.remedy.stacks import DEEP_NORM, T_FIXUP
from gradgauge.remedy.whole import REINITIALISE

REMEDIES: Final[tuple[Remedy, ...]] = (
    STANDARDISE,
    ADAM,
    CLIP,
    LEARNING_RATE,
    LOSS_SCALE,
    TRUNCATION,
    MEND,
    REDRAW_OUTLIER,
    BALANCE,
    ZERO_BIAS,
    RESCALE,
    REINITIALISE,
    BREAK_SYMMETRY,
    SCALE_RESIDUAL,
    FIXUP,
    FORGET_BIAS,
    CHRONO,
    IDENTITY,
    ORTHOGONAL_RECURRENCE,
    HE,
    GLOROT,
    LECUN,
    ORTHOGONAL,
    LEAKY,
    LAYER_NORM,
    BATCH_NORM,
    RMS_NORM,
    SKIP,
    REZERO,
    PRE_NORM,
    DEEP_NORM,
    T_FIXUP,
    LOGIT_SCALE,
    QK_NORM,
    SWAP,
    IRNN,
    TO_GRU,
    TO_LSTM,
)
