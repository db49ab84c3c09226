"""Energy: what the machine's processors use while a session is called, where the system has a counter and lets it be
read. Where not there is no figure; nothing is estimated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

from harness.contract import Device

POWERCAP = Path("/sys/class/powercap")  # the kernel's Documentation/power/powercap/powercap.rst
PACKAGE = re.compile(r"intel-rapl:\d+")  # also of AMD; `intel-rapl-mmio` counts the same once more
BLOCK_SECONDS = 0.2  # the counter moves about once a millisecond
DEVICE_BLOCK_SECONDS = 1.0  # a device's may move ten times a second


class Counter(Protocol):
    """Counts microjoules.

    Attributes:
        range_uj: the largest value; after it the counter begins at 0 again. None if it only grows.
    """

    @property
    def range_uj(self) -> int | None: ...

    def read_uj(self) -> int:
        """Microjoules since some moment; raises OSError or ValueError where it cannot be read."""


@dataclass(frozen=True)
class DeviceCounter:
    """The counter of a device beside the host."""

    device: Device
    range_uj: None = None

    def read_uj(self) -> int:
        """Microjoules.

        Raises:
            ValueError: the device counts none.
        """
        energy_j = self.device.energy_j()
        if energy_j is None:
            raise ValueError("it counts no energy")
        return round(energy_j * 1e6)


@dataclass(frozen=True)
class EnergyCounter:
    """The counter of one processor package.

    Attributes:
        file: holds microjoules since some moment, as text.
        range_uj: the largest value; after it the counter begins at 0 again.
    """

    file: Path
    range_uj: int

    def read_uj(self) -> int:
        """Microjoules.

        Raises:
            OSError, ValueError: it cannot be read.
        """
        return int(self.file.read_text(encoding="ascii"))


def energy_counters(folder: Path = POWERCAP) -> tuple[EnergyCounter, ...]:
    """The counters of all processor packages; none where one is missing or may not be read.

    A package holds its cores and caches, so domains inside one (`intel-rapl:0:0`) are left out, and so is the platform
    (`psys`), which holds the packages.
    """
    found = []
    try:
        for domain in sorted(folder.iterdir()):
            if PACKAGE.fullmatch(domain.name) and (domain / "name").read_text(encoding="ascii").startswith("package"):
                range_uj = int((domain / "max_energy_range_uj").read_text(encoding="ascii"))
                counter = EnergyCounter(domain / "energy_uj", range_uj)
                counter.read_uj()
                found.append(counter)
    except (OSError, ValueError):
        return ()
    return tuple(found)


def energy_of_a_call(
    call: Callable[[], object],
    counters: Sequence[Counter],
    seconds: float = BLOCK_SECONDS,
    clock: Callable[[], int] = perf_counter_ns,
) -> float | None:
    """Joules that all counters show a call, mean over a block of calls; whatever else the machine does is in it.

    Args:
        call: makes one call.
        counters: of all packages, or of a device.
        seconds: the block ends with the first call after which so much time is over.
        clock: nanoseconds, monotonic.

    Returns:
        None where there is no counter, one cannot be read or falls, or none of them has moved.
    """
    before = _readings_uj(counters)
    if not before:
        return None
    began, calls = clock(), 0
    while not calls or clock() - began < seconds * 1e9:
        call()
        calls += 1
    after = _readings_uj(counters)
    if len(after) < len(before):
        return None
    used_uj = 0
    for counter, early, late in zip(counters, before, after, strict=True):
        if late < early and counter.range_uj is None:
            return None
        used_uj += late - early + (counter.range_uj or 0) * (late < early)
    return used_uj / 1e6 / calls if used_uj else None


def _readings_uj(counters: Sequence[Counter]) -> list[int]:
    """What all counters show; nothing if one cannot be read or shows more than it can hold."""
    with suppress(OSError, ValueError):
        found = [counter.read_uj() for counter in counters]
        if all(0 <= uj <= (counter.range_uj or uj) for counter, uj in zip(counters, found, strict=True)):
            return found
    return []
