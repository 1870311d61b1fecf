"""Memory in large pages, for weights that are read from one end to the other."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

_LINE = 64
"""Bytes of a cache line, at which each tensor begins."""


def room_for(tensor: Tensor) -> int:
    """Bytes that the tensor takes in such memory."""
    return -(-tensor.numel() * tensor.element_size() // _LINE) * _LINE


class LargePages:
    """Memory of `size` bytes, in pages of 2 MB where Linux has them free.

    In small ones the address of each next page is looked up while its data should come: with AMX, 0.8 of the speed.
    Raises torch.OutOfMemoryError.
    """

    def __init__(self, size: int) -> None:
        try:
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise torch.OutOfMemoryError(f"can't allocate memory: {size} bytes") from error
        with suppress(OSError):  # a kernel without large pages
            memory.madvise(mmap.MADV_HUGEPAGE)
        self.bytes = torch.frombuffer(memory, dtype=torch.uint8)
        self._used = 0

    def empty_like(self, tensor: Tensor) -> Tensor:
        """A tensor of the same dtype and sides, behind what is there."""
        start, size = self._used, tensor.numel() * tensor.element_size()
        self._used += room_for(tensor)
        return self.bytes[start : start + size].view(tensor.dtype).view(tensor.shape)
