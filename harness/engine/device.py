"""Devices beside the host's processor, and caches that are emptied on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.catalog import Catalog
from harness.checked_device import CheckedDevice
from harness.contract import MOST_REASON, Device, DeviceState, HarnessError, Unsupported, one_line, printable

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
        self._refusals: dict[str, str] = {}
        self._caches = HostCaches()

    def clock(self, name: str) -> Device | None:
        """The device of that name, of the first plugin that can time it; None where nobody can, and for the host."""
        if name not in self._found:
            self._found[name], self._refusals[name] = self._open(name)
        return self._found[name]

    def whose(self, name: str) -> str:
        """Whose clock times what runs there: `host` or `device`."""
        return "host" if self.clock(name) is None else "device"

    def evict(self, name: str) -> Callable[[], object]:
        """What empties the caches of the device of that name, or of the host.

        Raises:
            Unsupported: nobody can.
        """
        device = self.clock(name)
        if device is None and name != HOST:
            why = self._refusals[name]
            raise Unsupported(f"nobody here can empty the caches of '{name}' ({why}); leave --cold-cache out")
        return self._caches.evict if device is None else device.evict

    def told(self, name: str) -> tuple[DeviceState | None, str]:
        """What the device of that name says of itself, None if the host's clock times it; and why that does."""
        device = self.clock(name)
        return (None if device is None else device.state()), self._refusals.get(name, "")

    def agree(self, name: str, clock: str | None) -> None:
        """Refuse another clock than has timed the run so far.

        Args:
            name: of the device.
            clock: whose that was: `host`, `device`, or None if nothing was timed.

        Raises:
            HarnessError: it is another one here.
        """
        own, why = self.whose(name), self._refusals.get(name, "")
        if clock not in (None, own):
            more = f" ({why})" if why else ""
            raise HarnessError(
                f"'{name}' has been timed by the {clock}'s clock in this run, and would be by the {own}'s here{more}; "
                "both are not one table: repair that, or leave the plugin with the accelerator out"
            )

    def _open(self, name: str) -> tuple[Device | None, str]:
        refusals = []
        for entry in self._catalog().entries:
            if entry.kind == "accelerator":
                try:
                    found = CheckedDevice(entry.name, entry.value.open(name))
                    found.check_clock()
                except HarnessError as error:
                    refusals.append(one_line(error))
                except Exception as error:  # a stranger's code
                    refusals.append(f"accelerator '{entry.name}': open failed: {one_line(error)}")
                else:
                    return found, ""
        return None, printable("; ".join(refusals) or "no plugin gives an accelerator", MOST_REASON)


def device_row(states: Sequence[DeviceState], why: str = "") -> dict[str, Any]:
    """Whose clock timed a process's calls and what the device said of itself: the columns of the processes table.

    The least of its clocks, the most of temperature and power, and every reason for throttling.

    Args:
        states: after each instance; none where the host's clock was used.
        why: it was, although there is a device.
    """

    def told(name: str) -> list[Any]:
        return [value for state in states if (value := getattr(state, name)) is not None]

    reasons = told("throttling")
    each = {reason.strip() for text in reasons for reason in text.split(",") if reason.strip()}
    return {
        "clock": "device" if states else "host",
        "clock_reason": why or None,
        "device_name": next(iter(told("name")), None),
        "device_clock_mhz": min(told("clock_mhz"), default=None),
        "device_memory_clock_mhz": min(told("memory_clock_mhz"), default=None),
        "device_temperature_c": max(told("temperature_c"), default=None),
        "device_power_w": max(told("power_w"), default=None),
        "device_throttling": (", ".join(sorted(each)) or "none") if reasons else None,
    }
