"""Where the engine runs: a GPU where there is one, in full float32 and within a share of it."""

import torch

SHARE = 0.9  # of a GPU's memory that this process may take


def choose(asked: str | None) -> torch.device:
    """The device asked for, else CUDA where it is there, else the CPU.

    On a GPU TF32 is switched off: its 10 bits of mantissa are not what float32 gradients are held
    against.
    """
    device = torch.device(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.cuda.set_per_process_memory_fraction(SHARE, device)
    return device
