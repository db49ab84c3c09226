"""What a plugin's device gives, before anybody relies on it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from toy_devices import Card, fails

from harness.checked_device import CheckedDevice
from harness.contract import Accelerator, DeviceState, HarnessError, Unsupported
from harness.testing import CheckFailed, check_accelerator


def test_who_fails_later_is_named_and_what_it_raises_for_the_user_is_passed_on() -> None:
    def refuses() -> None:
        raise Unsupported("a card's caches cannot be emptied")

    with pytest.raises(HarnessError, match=r"^accelerator 'a': evict failed: ValueError: it is broken$"):
        CheckedDevice("a", Card(evict=fails)).evict()
    with pytest.raises(Unsupported, match=r"^a card's caches cannot be emptied$"):
        CheckedDevice("a", Card(evict=refuses)).evict()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (fails, DeviceState()),
        (lambda: None, DeviceState()),
        (lambda: {"clock_mhz": 3}, DeviceState()),
        (lambda: DeviceState("a\ncard", clock_mhz=math.nan, power_w=5), DeviceState("a card", power_w=5.0)),
        (lambda: DeviceState(name=7, temperature_c="hot", throttling=""), DeviceState(throttling="")),  # type: ignore[arg-type]
        (lambda: DeviceState(memory_clock_mhz=True, clock_mhz=900), DeviceState(clock_mhz=900.0)),
    ],
)
def test_of_what_a_device_says_of_itself_only_what_can_be_so_is_kept(told: Any, kept: DeviceState) -> None:
    assert CheckedDevice("a", Card(state=told)).state() == kept


@pytest.mark.parametrize(("told", "kept"), [(fails, None), (lambda: None, None), (lambda: "3", None), (lambda: 3, 3.0)])
def test_energy_is_a_number_or_nothing(told: Any, kept: float | None) -> None:
    assert CheckedDevice("a", Card(energy_j=told)).energy_j() == kept


def refuses() -> None:
    raise Unsupported("not here")


def open_none(name: str) -> Any:
    refuses()


@pytest.mark.parametrize("card", [Card(), Card(evict=refuses), Card(energy_j=lambda: None), Card(state=DeviceState)])
def test_who_keeps_the_contract_passes_the_check_whatever_it_cannot_tell(card: Card) -> None:
    check_accelerator(Accelerator("a", "", lambda name: card), "card")


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (None, "open gave a NoneType without drain, mark, elapsed_ns, evict, state, energy_j"),
        (Card(elapsed_ns=lambda begin, end: 0), "its clock counted 0 s while 0."),
        (Card(drain=fails), "drain failed: ValueError: it is broken"),
        (Card(evict=fails), "evict failed: ValueError: it is broken"),
        (Card(state=dict), "state gave a dict; give harness.DeviceState"),
        (
            Card(state=lambda: DeviceState(power_w=math.nan, throttling=3)),  # type: ignore[arg-type]
            "state: power_w, throttling must be a finite number, or a text where it is one",
        ),
        (Card(energy_j=lambda: "3"), "energy_j gave 3; it must give joules, or None"),
    ],
)
def test_who_breaks_the_contract_fails_the_check_with_the_reason(card: Any, reason: str) -> None:
    with pytest.raises(CheckFailed) as caught:
        check_accelerator(Accelerator("a", "", lambda name: card), "card")
    assert str(caught.value).startswith(f"a: accelerator: {reason}")


def test_a_device_that_is_not_here_is_no_failure() -> None:
    with pytest.raises(Unsupported, match=r"^not here$"):
        check_accelerator(Accelerator("a", "", open_none), "card")
