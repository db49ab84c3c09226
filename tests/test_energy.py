"""Energy counters of a made-up machine: which of them count, and what a block of calls used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.engine.energy import DeviceCounter, EnergyCounter, energy_counters, energy_of_a_call

RANGE_UJ = 262143328850


def domain(folder: Path, name: str, says: str, energy_uj: int | str = 0, range_uj: int | str = RANGE_UJ) -> Path:
    """A domain as the kernel shows it; the file that counts."""
    own = folder / name
    own.mkdir(parents=True)
    for file, text in (("name", says), ("energy_uj", energy_uj), ("max_energy_range_uj", range_uj)):
        (own / file).write_text(f"{text}\n", encoding="ascii")
    return own / "energy_uj"


class Machine:
    """Calls that take 10 ms of a clock of their own, and energy of these counters."""

    def __init__(self, uses_uj: dict[Path, int], wraps_at: int = RANGE_UJ) -> None:
        self.now_ns = self.calls = 0
        self._uses_uj, self._wraps_at = uses_uj, wraps_at

    def clock(self) -> int:
        return self.now_ns

    def call(self) -> None:
        self.now_ns += 10_000_000
        self.calls += 1
        for file, used in self._uses_uj.items():
            file.write_text(str((int(file.read_text(encoding="ascii")) + used) % self._wraps_at), encoding="ascii")


def test_the_packages_count_and_nothing_inside_or_around_them_does(tmp_path: Path) -> None:
    files = [domain(tmp_path, f"intel-rapl:{n}", f"package-{n}") for n in (0, 1)]
    domain(tmp_path, "intel-rapl:0:0", "core")
    domain(tmp_path, "intel-rapl:0:1", "dram")
    domain(tmp_path, "intel-rapl:2", "psys")
    domain(tmp_path, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    assert energy_counters(tmp_path) == tuple(EnergyCounter(file, RANGE_UJ) for file in files)


def test_the_energy_of_a_call_is_that_of_all_packages_over_the_calls_of_the_block(tmp_path: Path) -> None:
    first, second = (domain(tmp_path, f"intel-rapl:{n}", f"package-{n}", 10**9) for n in (0, 1))
    machine = Machine({first: 1500, second: 500})
    joules = energy_of_a_call(machine.call, energy_counters(tmp_path), 0.2, machine.clock)
    assert joules == pytest.approx(2000e-6)
    assert machine.calls == 20


def test_a_counter_that_begins_again_has_counted_on(tmp_path: Path) -> None:
    file = domain(tmp_path, "intel-rapl:0", "package-0", 9_000, range_uj=10_000)
    machine = Machine({file: 90}, wraps_at=10_000)
    joules = energy_of_a_call(machine.call, energy_counters(tmp_path), 0.2, machine.clock)
    assert int(file.read_text(encoding="ascii")) == 800
    assert joules == pytest.approx(90e-6)


def test_a_call_that_takes_longer_than_the_block_is_made_once(tmp_path: Path) -> None:
    machine = Machine({domain(tmp_path, "intel-rapl:0", "package-0"): 70})
    assert energy_of_a_call(machine.call, energy_counters(tmp_path), 0.001, machine.clock) == pytest.approx(70e-6)
    assert machine.calls == 1


def missing(folder: Path) -> None:
    folder.rmdir()


def nothing_in_it(folder: Path) -> None:
    pass


def one_may_not_be_read(folder: Path) -> None:
    domain(folder, "intel-rapl:0", "package-0")
    domain(folder, "intel-rapl:1", "package-1").unlink()


def no_number(folder: Path) -> None:
    domain(folder, "intel-rapl:0", "package-0", "n/a")


def no_range(folder: Path) -> None:
    domain(folder, "intel-rapl:0", "package-0", range_uj="")


@pytest.mark.parametrize("make", [missing, nothing_in_it, one_may_not_be_read, no_number, no_range])
def test_where_not_every_package_can_be_read_there_is_no_counter(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path)
    assert energy_counters(tmp_path) == ()


def test_without_a_counter_nothing_is_called_and_nothing_guessed() -> None:
    machine = Machine({})
    assert energy_of_a_call(machine.call, (), 0.2, machine.clock) is None
    assert machine.calls == 0


def test_a_counter_that_stands_still_or_breaks_or_leaves_its_range_gives_no_figure(tmp_path: Path) -> None:
    file = domain(tmp_path, "intel-rapl:0", "package-0", range_uj=10_000)
    counters = energy_counters(tmp_path)
    still = Machine({})
    assert energy_of_a_call(still.call, counters, 0.2, still.clock) is None
    outside = Machine({file: 20_000})
    assert energy_of_a_call(outside.call, counters, 0.001, outside.clock) is None

    def unplug() -> None:
        still.call()
        file.unlink(missing_ok=True)

    assert energy_of_a_call(unplug, counters, 0.2, still.clock) is None


def test_what_a_call_raises_is_not_hidden(tmp_path: Path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0")

    def fails() -> None:
        raise ValueError("of the session's own")

    with pytest.raises(ValueError, match="of the session's own"):
        energy_of_a_call(fails, energy_counters(tmp_path))


class Card:
    """A device that uses half a joule a call, and may not say so."""

    def __init__(self, counts: bool = True) -> None:
        self._counts, self.calls, self.now_ns = counts, 0, 0

    def call(self) -> None:
        self.calls += 1
        self.now_ns += 10_000_000

    def clock(self) -> int:
        return self.now_ns

    def energy_j(self) -> float | None:
        return 1e6 + 0.5 * self.calls if self._counts else None


def test_a_devices_own_counter_is_read_around_the_block() -> None:
    card: Any = Card()
    assert energy_of_a_call(card.call, [DeviceCounter(card)], 1.0, card.clock) == pytest.approx(0.5)
    assert card.calls == 100


def test_a_devices_counter_that_falls_has_counted_nothing() -> None:
    card: Any = Card()
    card.energy_j = lambda: 5.0 - card.calls
    assert energy_of_a_call(card.call, [DeviceCounter(card)], 0.02, card.clock) is None


def test_a_device_that_counts_no_energy_is_not_called() -> None:
    card: Any = Card(counts=False)
    assert energy_of_a_call(card.call, [DeviceCounter(card)], 1.0, card.clock) is None
    assert card.calls == 0
