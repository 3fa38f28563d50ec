"""What torch cannot compute with, computed by numpy: wide unsigned integers and strings."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, Any]
_UNSIGNED = frozenset({torch.uint16, torch.uint32, torch.uint64})


def by_numpy(run: Callable[..., Tensor], function: Callable[..., Any]) -> Callable[..., Tensor]:
    """`run`, but `function` of numpy arrays where an input is a wide unsigned integer or an array.

    `function` takes the same attributes.
    """

    @wraps(run)
    def either(*xs: Any, **attributes: Any) -> Tensor:
        for x in xs:
            if x is not None and (isinstance(x, np.ndarray) or x.dtype in _UNSIGNED):
                break
        else:
            return run(*xs, **attributes)
        device = next((x.device for x in xs if isinstance(x, Tensor)), None)
        made = function(*(array(x) for x in xs if x is not None), **attributes)
        return tensor(made).to(device)

    return either


def array(x: Tensor | Array) -> Array:
    """A tensor's elements, detached, on the host."""
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x


def tensor(x: Any) -> Tensor:
    """Back to torch; a result of dtype object (of comparing strings) is boolean."""
    found = np.asarray(x)
    return torch.from_numpy(found.astype(bool) if found.dtype == object else found)
