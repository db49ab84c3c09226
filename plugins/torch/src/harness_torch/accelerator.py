"""Accelerators through torch's own interface to them, whichever they are: waiting, the device's clock, its caches."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import harness
from harness_torch.memory import allocate_beside
from harness_torch.nvml import Gauges, find_gauges
from harness_torch.session import find_device, one_line

CACHE_SIZES = ("L2_cache_size", "last_level_cache_size")  # where devices' properties have it: of CUDA, of XPU
WAITS_FOR_EVER = frozenset({"mps"})  # elapsed_time after synchronize: https://github.com/pytorch/pytorch/issues/162872
LEAST_EVICTED_BYTES = 256 * 2**20  # what triton.testing.do_bench overwrites; some have caches that torch does not tell


def open_device(accelerator: str, name: str) -> harness.Device:
    """The accelerator of that name; see `harness.Accelerator`.

    Raises:
        Unsupported: it is not here, it is the CPU, or torch cannot read its clock.
    """
    who = f"accelerator '{accelerator}'"
    if name == "cpu":
        raise harness.Unsupported(f"{who} is not for 'cpu'; its clock is the host's")
    found = find_device(who, name)
    if found.type in WAITS_FOR_EVER:
        raise harness.Unsupported(f"{who}: on '{name}' torch's events cannot be waited for and then read")
    device = TorchDevice(found)
    try:
        device.elapsed_ns(device.mark(), device.mark())
    except Exception as error:  # every accelerator's torch says so in a way of its own
        raise harness.Unsupported(
            f"{who} cannot read the clock of '{name}' ({one_line(error)}); the host's clock has to do"
        ) from error
    return device


class TorchDevice:
    """See `harness.Device`. Its clock are torch's events, which on CUDA tell half a microsecond apart."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def drain(self) -> None:
        """Wait for the device: on CUDA for all that it does, elsewhere for the streams that torch has made."""
        torch.accelerator.synchronize(self._device)

    def mark(self) -> torch.Event:
        """An event on the stream that is current on this device, which need not be the process's current device."""
        event = torch.Event(self._device, enable_timing=True)
        event.record(torch.accelerator.current_stream(self._device))
        return event

    def elapsed_ns(self, begin: torch.Event, end: torch.Event) -> int:
        """Nanoseconds from one event to a later one, for which it waits."""
        end.synchronize()
        return round(begin.elapsed_time(end) * 1e6)  # of milliseconds

    def evict(self) -> None:
        """Overwrite more memory than the device's last cache holds."""
        self._buffer.zero_()

    def state(self) -> harness.DeviceState:
        """Its name, and what NVML says; that is nothing of other devices than NVIDIA's, or without nvidia-ml-py."""
        state = self._gauges.state() if self._gauges else harness.DeviceState()
        return replace(state, name=getattr(self._properties, "name", None))

    def energy_j(self) -> float | None:
        """Joules that it has used since its driver was loaded, from NVML; None where that is not told."""
        return self._gauges.energy_j() if self._gauges else None

    @cached_property
    def _buffer(self) -> Tensor:
        cache_bytes = max(int(getattr(self._properties, name, 0)) for name in CACHE_SIZES)
        return allocate_beside(self._device, max(2 * cache_bytes, LEAST_EVICTED_BYTES))

    @cached_property
    def _gauges(self) -> Gauges | None:
        uuid = getattr(self._properties, "uuid", None)
        return None if uuid is None else find_gauges(str(uuid))

    @cached_property
    def _properties(self) -> Any:
        """What torch tells of the device; None where it tells nothing."""
        with suppress(AttributeError, NotImplementedError, RuntimeError):
            return torch.get_device_module(self._device).get_device_properties(self._device)
        return None
