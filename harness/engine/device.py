"""Devices beside the host's processor, and caches that are emptied on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.catalog import Catalog
from harness.contract import Device, DeviceState, Unsupported

HOST = "cpu"  # the device that is always there, and whose clock is everybody's
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # the kernel's Documentation/ABI/testing/sysfs-devices-system-cpu
UNITS = {"K": 2**10, "M": 2**20}
UNTOLD_BYTES = 2**25  # 32 MiB, where the system does not tell how large its caches are
TIMES = 2.0  # what is read, over what the largest cache holds; benchmarks/cold_caches.py looks at others


class HostCaches:
    """The caches of the core that calls, and those that it shares with others.

    Args:
        folder: the system's folder of one core's caches.
        times: how much is read, over what the largest holds.

    Attributes:
        size_bytes: of the largest.
    """

    def __init__(self, folder: Path = CACHES, times: float = TIMES) -> None:
        self.size_bytes = largest_cache_bytes(folder)
        self._times = times
        self._memory: Any = None

    def evict(self) -> None:
        """Read more than the largest holds, so that what was used before must come from memory again."""
        if self._memory is None:
            self._memory = np.ones(round(self._times * self.size_bytes) // 8)
        if len(self._memory):
            self._memory.max()  # reads all of it and keeps nothing; a write might pass the caches by


def largest_cache_bytes(folder: Path = CACHES) -> int:
    """The size of a core's largest cache, shared ones too; 32 MiB where the system does not tell."""
    sizes = []
    for file in folder.glob("index*/size"):
        with suppress(OSError, ValueError, LookupError):
            text = file.read_text(encoding="ascii").strip()
            sizes.append(int(text[:-1]) * UNITS[text[-1]])
    return max(sizes, default=UNTOLD_BYTES)


class Devices:
    """The devices of one process, each opened when it is first asked for.

    Args:
        catalog: gives what the plugins of this process give.
    """

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog
        self._found: dict[str, Device | None] = {HOST: None}
        self._caches = HostCaches()

    def clock(self, name: str) -> Device | None:
        """The device of that name, of the first plugin that knows it; None where nobody does, and for the host."""
        if name not in self._found:
            self._found[name] = self._open(name)
        return self._found[name]

    def evict(self, name: str) -> Callable[[], object]:
        """What empties the caches of the device of that name, or of the host.

        Raises:
            Unsupported: no plugin knows it.
        """
        device = self.clock(name)
        if device is None and name != HOST:
            raise Unsupported(f"no plugin here can empty the caches of '{name}'; leave --cold-cache out")
        return self._caches.evict if device is None else device.evict

    def _open(self, name: str) -> Device | None:
        for entry in self._catalog().entries:
            if entry.kind == "accelerator":
                with suppress(Unsupported):
                    found: Device = entry.value.open(name)
                    return found
        return None


def device_row(states: Sequence[DeviceState]) -> dict[str, Any]:
    """Whose clock timed a process's calls and what the device said of itself: the columns of the processes table.

    The least of its clocks, the most of temperature and power, and every reason for throttling.
    """

    def told(name: str) -> list[Any]:
        return [value for state in states if (value := getattr(state, name)) is not None]

    reasons = told("throttling")
    each = {reason.strip() for text in reasons for reason in text.split(",") if reason.strip()}
    return {
        "clock": "device" if states else "host",
        "device_name": next(iter(told("name")), None),
        "device_clock_mhz": min(told("clock_mhz"), default=None),
        "device_memory_clock_mhz": min(told("memory_clock_mhz"), default=None),
        "device_temperature_c": max(told("temperature_c"), default=None),
        "device_power_w": max(told("power_w"), default=None),
        "device_throttling": (", ".join(sorted(each)) or "none") if reasons else None,
    }
