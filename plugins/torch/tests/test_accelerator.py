"""The accelerator of torch: its clock, its caches, and what NVML says of it. Without one here, on a made-up device."""

from __future__ import annotations

import sys
from time import perf_counter_ns
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness_torch import accelerator as module
from harness_torch import memory
from harness_torch.accelerator import LEAST_EVICTED_BYTES, TorchDevice, open_device
from harness_torch.memory import allocate_beside, forget_peak, peak_device_bytes
from harness_torch.nvml import Gauges, find_gauges, throttling

import harness

SECOND = torch.device("cuda:1")  # a name: nothing is placed there
UUID = "4f5a0d1c-1111-2222-3333-444455556666"


class Queue:
    """A device whose clock goes on as its work is done, which is when somebody waits for it."""

    def __init__(self) -> None:
        self.now_ms = 100.0
        self.work: list[Any] = []
        self.log: list[str] = []

    def take(self, milliseconds: float) -> None:
        self.work.append(milliseconds)

    def finish(self, last: Any = None) -> None:
        while self.work:
            item = self.work.pop(0)
            if isinstance(item, float):
                self.now_ms += item
            else:
                item.reached_ms = self.now_ms
            if item is last:
                return


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()

    class Event:
        def __init__(self, device: torch.device, *, enable_timing: bool = False) -> None:
            self.device, self.is_timed = device, enable_timing
            self.reached_ms: float | None = None

        def record(self, stream: str | None = None) -> None:
            made.log.append(f"record on {stream or 'the current device'}")
            made.work.append(self)

        def synchronize(self) -> None:
            made.log.append("wait for the event")
            if self.reached_ms is None:
                made.finish(self)

        def elapsed_time(self, end: Any) -> float:
            if not (self.is_timed and end.is_timed):
                raise ValueError("Both events must be created with argument 'enable_timing=True'.")
            if self.reached_ms is None or end.reached_ms is None:
                raise RuntimeError("Both events must be completed before calculating elapsed time.")
            return float(end.reached_ms - self.reached_ms)

    def synchronize(device: torch.device) -> None:
        made.log.append(f"drain {device}")
        made.finish()

    monkeypatch.setattr(torch, "Event", Event)
    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(module, "find_device", lambda who, name: torch.device(name))
    return made


def tell_properties(monkeypatch: pytest.MonkeyPatch, **properties: Any) -> None:
    told = SimpleNamespace(get_device_properties=lambda device: SimpleNamespace(**properties))
    monkeypatch.setattr(torch, "get_device_module", lambda device: told)


# The clock


def test_the_clock_tells_what_the_device_did_between_two_marks_in_nanoseconds(queue: Queue) -> None:
    device = open_device("torch-accelerator", "cuda:1")
    queue.take(7.0)  # not between them
    device.drain()
    begin = device.mark()
    queue.take(1.5)
    queue.take(0.25)
    end = device.mark()
    queue.take(50.0)
    assert device.elapsed_ns(begin, end) == 1_750_000
    assert queue.work == [50.0]  # it waited for the mark, not for the device


def test_draining_waits_for_all_the_devices_work(queue: Queue) -> None:
    queue.take(3.0)
    queue.take(4.0)
    TorchDevice(SECOND).drain()
    assert (queue.work, queue.now_ms, queue.log) == ([], 107.0, ["drain cuda:1"])


def test_a_mark_is_on_the_stream_of_its_own_device_whichever_is_current(queue: Queue) -> None:
    TorchDevice(SECOND).mark()
    assert queue.log == ["record on the stream of cuda:1"]


def test_elapsed_time_is_rounded_to_the_nearest_nanosecond(queue: Queue) -> None:
    device = TorchDevice(SECOND)
    begin = device.mark()
    queue.take(0.0000027)
    assert device.elapsed_ns(begin, device.mark()) == 3


@pytest.mark.parametrize("error", [RuntimeError("no timing\nhere"), ValueError("no timing"), TypeError("no timing")])
def test_a_device_whose_events_tell_no_time_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, error: Exception
) -> None:
    def fail(begin: Any, end: Any) -> float:
        raise error

    monkeypatch.setattr(torch.Event, "elapsed_time", fail)
    with pytest.raises(harness.Unsupported) as caught:
        open_device("torch-accelerator", "cuda:1")
    assert str(caught.value) == (
        "accelerator 'torch-accelerator' cannot read the clock of 'cuda:1' (no timing); the host's clock has to do"
    )


def test_the_clock_is_tried_when_a_device_is_opened(queue: Queue) -> None:
    open_device("torch-accelerator", "cuda:1")
    assert queue.log == ["record on the stream of cuda:1"] * 2 + ["wait for the event"]


def test_the_cpu_and_a_device_that_is_not_here_are_refused_in_one_line() -> None:
    (accelerator,) = [entry.value for entry in harness.discover().entries if entry.kind == "accelerator"]
    with pytest.raises(
        harness.Unsupported, match=r"^accelerator 'torch-accelerator' is not for 'cpu'; its clock is .*$"
    ):
        accelerator.open("cpu")
    text = r"^accelerator 'torch-accelerator' finds no device 'toaster' here; choose one of cpu.*$"
    with pytest.raises(harness.Unsupported, match=text):
        accelerator.open("toaster")


# The caches


@pytest.mark.parametrize(
    ("properties", "size_bytes"),
    [
        ({"L2_cache_size": 300 * 2**20}, 600 * 2**20),
        ({"last_level_cache_size": 200 * 2**20}, 400 * 2**20),
        ({"L2_cache_size": 4 * 2**20}, LEAST_EVICTED_BYTES),
        ({}, LEAST_EVICTED_BYTES),
    ],
)
def test_twice_the_cache_is_overwritten_and_never_less_than_triton_overwrites(
    monkeypatch: pytest.MonkeyPatch, properties: dict[str, int], size_bytes: int
) -> None:
    asked: list[tuple[torch.device, int]] = []

    def allocate(device: torch.device, size: int) -> Any:
        asked.append((device, size))
        return torch.ones(16, dtype=torch.uint8)

    tell_properties(monkeypatch, **properties)
    monkeypatch.setattr(module, "allocate_beside", allocate)
    device = TorchDevice(SECOND)
    assert not asked  # who evicts nothing holds no memory for it
    device.evict()
    device._buffer.fill_(1)
    device.evict()
    assert asked == [(SECOND, size_bytes)]
    assert not device._buffer.any()


def test_a_device_of_which_torch_tells_nothing_is_evicted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())  # as torch.mps
    monkeypatch.setattr(module, "allocate_beside", lambda device, size: torch.ones(size // 2**24))
    device = TorchDevice(torch.device("mps"))
    device.evict()
    assert len(device._buffer) == LEAST_EVICTED_BYTES // 2**24
    assert device.state() == harness.DeviceState()
    assert device.energy_j() is None


def test_what_is_overwritten_counts_for_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"now": 0, "peak": 0}

    def hold(size: int) -> None:
        held["now"] += size
        held["peak"] = max(held["peak"], held["now"])

    def empty(size: int, **_: Any) -> Any:
        hold(size)
        return SimpleNamespace()

    monkeypatch.setattr(memory, "_beside", {})
    monkeypatch.setattr(memory, "_before", {})
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda device: held["peak"])
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda device: held.update(peak=held["now"]))
    forget_peak(SECOND)
    hold(70)
    hold(-60)
    allocate_beside(SECOND, 500)
    assert peak_device_bytes(SECOND) == 70  # the past peak is no less, and the buffer is not in it
    hold(20)
    hold(-20)
    assert peak_device_bytes(SECOND) == 70
    hold(80)
    hold(-80)
    assert peak_device_bytes(SECOND) == 90
    forget_peak(SECOND)
    assert peak_device_bytes(SECOND) == 10
    assert peak_device_bytes(torch.device("cuda:0")) == held["peak"]  # another device has its own


# What NVML says


class NVMLError(Exception):
    pass


class FakeNVML(SimpleNamespace):
    """pynvml with one device, whose answers can be set; functions that are deleted are unknown to the driver."""

    def __init__(self) -> None:
        super().__init__(
            NVMLError=NVMLError,
            NVML_CLOCK_SM=1,
            NVML_CLOCK_MEM=2,
            NVML_TEMPERATURE_GPU=0,
            NVML_DEVICE_MIG_ENABLE=1,
            nvmlClocksEventReasonNone=0,
            nvmlClocksEventReasonGpuIdle=1,
            nvmlClocksEventReasonApplicationsClocksSetting=2,
            nvmlClocksEventReasonUserDefinedClocks=2,
            nvmlClocksEventReasonSwPowerCap=4,
            nvmlClocksEventReasonHwThermalSlowdown=0x40,
            nvmlClocksEventReasonDisplayClockSetting=0x100,
            nvmlClocksEventReasonAll=0x147,
            nvmlClocksThrottleReasonSwPowerCap=4,
            nvmlClocksThrottleReasonBoardLimit=0x200,
            nvmlInit=lambda: None,
            nvmlDeviceGetHandleByUUID=self.find,
            nvmlDeviceGetMigMode=self.fail,
            nvmlDeviceGetClockInfo=lambda handle, which: {1: 1980, 2: 2619}[which],
            nvmlDeviceGetTemperature=lambda handle, sensor: {0: 41}[sensor],
            nvmlDeviceGetPowerUsage=lambda handle: 123_456,
            nvmlDeviceGetTotalEnergyConsumption=lambda handle: 987_654_321,
            nvmlDeviceGetCurrentClocksEventReasons=lambda handle: 0x44,
            nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 4,
        )

    def find(self, uuid: str) -> str:
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return "handle"

    def fail(self, *_: Any) -> Any:
        raise NVMLError("Not Supported")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNVML:
    made = FakeNVML()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    tell_properties(monkeypatch, uuid=UUID, name="a card")
    return made


def test_the_state_of_a_device_is_told_in_the_units_of_the_contract(nvml: FakeNVML) -> None:
    device = TorchDevice(SECOND)
    assert device.state() == harness.DeviceState("a card", 1980, 2619, 41, 123.456, "SwPowerCap, HwThermalSlowdown")
    assert device.energy_j() == 987_654.321


@pytest.mark.parametrize(
    ("function", "field"),
    [
        ("nvmlDeviceGetTemperature", "temperature_c"),
        ("nvmlDeviceGetPowerUsage", "power_w"),
    ],
)
def test_what_a_device_does_not_tell_is_none_and_the_rest_is_told(nvml: FakeNVML, function: str, field: str) -> None:
    setattr(nvml, function, nvml.fail)
    state = TorchDevice(SECOND).state()
    assert getattr(state, field) is None
    assert state.clock_mhz == 1980
    assert state.throttling == "SwPowerCap, HwThermalSlowdown"


def test_energy_that_is_not_counted_is_none(nvml: FakeNVML) -> None:
    nvml.nvmlDeviceGetTotalEnergyConsumption = nvml.fail
    assert TorchDevice(SECOND).energy_j() is None


@pytest.mark.parametrize("how", ["unknown to the library", "unknown to the driver"])
def test_an_older_driver_is_asked_by_the_older_name(nvml: FakeNVML, how: str) -> None:
    if how == "unknown to the library":
        del nvml.nvmlDeviceGetCurrentClocksEventReasons
    else:
        nvml.nvmlDeviceGetCurrentClocksEventReasons = nvml.fail
    assert TorchDevice(SECOND).state().throttling == "SwPowerCap"
    nvml.nvmlDeviceGetCurrentClocksThrottleReasons = nvml.fail
    assert TorchDevice(SECOND).state().throttling is None


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (0, ""),
        (0x1, ""),
        (0x2, ""),
        (0x103, ""),
        (0x4, "SwPowerCap"),
        (0x47, "SwPowerCap, HwThermalSlowdown"),
        (0x200, "BoardLimit"),
        (0x8004, "SwPowerCap, 0x8000"),
    ],
)
def test_only_what_holds_the_clock_down_is_throttling(bits: int, said: str) -> None:
    assert throttling(FakeNVML(), bits) == said


def test_without_the_package_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tell_properties(monkeypatch, uuid=UUID)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it fails
    device = TorchDevice(SECOND)
    assert device.state() == harness.DeviceState()
    assert device.energy_j() is None


@pytest.mark.parametrize("what", ["no driver", "another device", "divided"])
def test_without_a_whole_device_of_that_uuid_nothing_is_told(nvml: FakeNVML, what: str) -> None:
    if what == "no driver":
        nvml.nvmlInit = nvml.fail
    if what == "divided":
        nvml.nvmlDeviceGetMigMode = lambda handle: [1, 1]
    assert find_gauges("another" if what == "another device" else UUID) is None


def test_a_device_that_could_be_divided_and_is_not_is_told_of(nvml: FakeNVML) -> None:
    nvml.nvmlDeviceGetMigMode = lambda handle: [0, 1]
    assert TorchDevice(SECOND).state().clock_mhz == 1980


def test_what_is_asked_of_nvml_is_in_nvidias_own_package() -> None:
    library = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    assert not set(vars(FakeNVML())) - {"nvmlClocksThrottleReasonBoardLimit"} - set(vars(library))
    assert throttling(library, 0x1FF) == (
        "SwPowerCap, HwSlowdown, SyncBoost, SwThermalSlowdown, HwThermalSlowdown, HwPowerBrakeSlowdown"
    )


def test_nvml_is_asked_for_once_and_not_before_somebody_asks_for_the_state(
    monkeypatch: pytest.MonkeyPatch, queue: Queue, nvml: FakeNVML
) -> None:
    asked: list[str] = []

    def find(uuid: str) -> Gauges | None:
        asked.append(uuid)
        return find_gauges(uuid)

    monkeypatch.setattr(module, "find_gauges", find)
    device = open_device("torch-accelerator", "cuda:1")
    device.drain()
    assert not asked
    device.state(), device.state(), device.energy_j()
    assert asked == [UUID]


# On an accelerator

HERE = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
ON_ONE = pytest.mark.skipif(HERE is None, reason="no accelerator is here")


@ON_ONE
def test_the_clock_of_an_accelerator_agrees_with_the_hosts_on_long_work() -> None:
    device = open_device("torch-accelerator", str(HERE))
    matrix = torch.randn(2048, 2048, device=HERE)
    product = matrix
    shares = []
    for _ in range(5):
        device.drain()
        start = perf_counter_ns()
        begin = device.mark()
        for _ in range(100):
            product = matrix @ product
        end = device.mark()
        elapsed_ns = device.elapsed_ns(begin, end)
        shares.append(elapsed_ns / (perf_counter_ns() - start))
    assert max(shares) > 0.5
    assert max(shares) <= 1.0


@ON_ONE
def test_an_accelerator_is_overwritten_beyond_its_cache() -> None:
    device = TorchDevice(torch.empty(0, device=HERE).device)
    before = peak_device_bytes(device._device)
    device.evict()
    assert device._buffer.nbytes >= 2 * getattr(device._properties, "L2_cache_size", 0)
    assert device._buffer.nbytes >= LEAST_EVICTED_BYTES
    assert (peak_device_bytes(device._device) or 0) - (before or 0) < 2**20


@ON_ONE
def test_what_an_accelerator_says_of_itself_is_plausible() -> None:
    device = TorchDevice(torch.empty(0, device=HERE).device)
    state = device.state()
    for value, most in ((state.clock_mhz, 5e3), (state.temperature_c, 120), (state.power_w, 3e3)):
        assert value is None or 0 < value < most
    first, second = device.energy_j(), device.energy_j()
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert 0 < first <= second


def test_where_torchs_events_wait_for_ever_they_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness_torch.accelerator.find_device", lambda who, name: torch.device("mps"))
    with pytest.raises(
        harness.Unsupported, match=r"^accelerator 'a': on 'mps' torch's events cannot be waited for and"
    ):
        open_device("a", "mps")
