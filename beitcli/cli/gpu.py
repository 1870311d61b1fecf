"""The one GPU of a training, the only one that torch gets to see."""

import os
import re

from beitcli.errors import UsageError


def one_gpu(device: str) -> str:
    """Name of the device; hides all other GPUs from torch, as the Trainer would use every one."""
    chosen = re.fullmatch(r"(auto|cuda)(?::(\d+))?", device)
    if chosen is None:
        return device
    number, hidden = int(chosen[2] or 0), os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden == "":
        return chosen[1]
    visible = hidden.split(",") if hidden else []
    if visible and number >= len(visible):
        raise UsageError(f"--device {device}: CUDA_VISIBLE_DEVICES is `{hidden}`", f"cuda:0 is GPU {visible[0]}")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    return chosen[1]
