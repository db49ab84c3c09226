"""How much of a device's memory torch's tensors have held at most, where torch counts it."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

NOT_COUNTED = (AttributeError, NotImplementedError, RuntimeError)  # an older torch, another accelerator

_beside: dict[torch.device, int] = {}  # bytes that belong to no session
_before: dict[torch.device, int] = {}  # the peak until the last of these was allocated


def forget_peak(device: torch.device) -> None:
    """Let the peak of the device's memory begin at what it holds now, where torch counts it."""
    _before.pop(device, None)
    if device.type != "cpu":
        with suppress(*NOT_COUNTED):
            torch.accelerator.reset_peak_memory_stats(device)


def peak_device_bytes(device: torch.device) -> int | None:
    """The most memory that torch's tensors have held on the device since `forget_peak`; None if that is not counted.

    What `allocate_beside` gave is left out.
    """
    if device.type != "cpu":
        with suppress(*NOT_COUNTED):
            counted = int(torch.accelerator.max_memory_allocated(device)) - _beside.get(device, 0)
            return max(counted, _before.get(device, 0)) or None
    return None


def allocate_beside(device: torch.device, size_bytes: int) -> Tensor:
    """A tensor of so many bytes, kept until the process ends, that is in no peak: neither a past nor a later one."""
    before = peak_device_bytes(device)
    buffer = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    forget_peak(device)
    _before[device] = before or 0
    _beside[device] = _beside.get(device, 0) + size_bytes
    return buffer
