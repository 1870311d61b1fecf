"""Memory in large pages: tensors one behind the other, and memory that cannot be had."""

import pytest
import torch

from beitcli.model.cpu.large_pages import LargePages, room_for


def test_tensors_lie_one_behind_the_other_at_whole_cache_lines() -> None:
    tensors = [torch.arange(5.0), torch.ones(3, 7, dtype=torch.int8), torch.empty(0), torch.ones(2, 2).bfloat16()]
    memory = LargePages(sum(map(room_for, tensors)))
    kept = [memory.empty_like(tensor).copy_(tensor) for tensor in tensors]
    assert all(map(torch.equal, kept, tensors))
    assert [each.dtype for each in kept] == [each.dtype for each in tensors]
    assert not any(tensor.data_ptr() % 64 for tensor in kept if tensor.numel())


def test_memory_that_cannot_be_had_is_out_of_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError, match="can't allocate memory"):
        LargePages(1 << 60)
