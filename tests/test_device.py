"""Devices beside the host: whose clock times them, from a drained device to a drained device; and emptied caches."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from strangers import World
from toy_devices import CLOCK, COLD_NS, COMPUTE_NS, COPY_NS, JOULES, SOURCE, Card, fails

from harness.catalog import Catalog, Entry, Plugin
from harness.cli import main
from harness.contract import Accelerator, DeviceState, HarnessError, Unsupported
from harness.engine.device import UNTOLD_BYTES, Devices, HostCaches, device_row, largest_cache_bytes
from harness.store import Run, load
from harness.tables import records

SUITE = """
models = ["*"]
seeds = 0
device = "toy"
[latency]
scenarios = ["single-stream"]
slices = 2
instances = 2
calls = 10
seconds = 0.01
twins = 0
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    found = World(tmp_path / "plugins", monkeypatch)
    found.add_plain()
    return found


def run(*options: str, suite: str = SUITE) -> tuple[Result, Run]:
    Path("toy.toml").write_text(suite, encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "toy.toml", "--out", "out", "--quiet", *options])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result, load("out")


def seconds(finished: Run) -> dict[tuple[str, str], float]:
    return {(row["variant"], row["boundary"]): row["latency_s"] for row in records(finished.latency)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("toys")
        patch.chdir(folder)
        world = World(folder / "plugins", patch)
        world.add_plain()
        world.add("toys", SOURCE + CLOCK)
        yield run()


def test_a_device_with_a_clock_times_calls_to_the_nanosecond_of_that_clock_with_copies_end_to_end_only(
    finished: Any,
) -> None:
    result, found = finished
    assert result.exit_code == 0, result.output
    known = seconds(found)
    assert known["plain-lstm@toy", "compute"] == pytest.approx(COMPUTE_NS / 1e9)
    assert known["plain-lstm@toy", "end-to-end"] == pytest.approx((COMPUTE_NS + 2 * COPY_NS) / 1e9)


def test_a_device_with_a_clock_times_who_does_not_wait_for_it_as_long_as_who_does(finished: Any) -> None:
    known = seconds(finished[1])
    for boundary in ("compute", "end-to-end"):
        assert known["plain-lstm@sloppy", boundary] == known["plain-lstm@toy", boundary]


def test_a_device_with_a_clock_is_said_to_have_done_so_with_the_worst_that_it_told_of_itself(finished: Any) -> None:
    for row in records(finished[1].processes):
        assert (row["clock"], row["device_name"]) == ("device", "a toy")
        assert (row["device_clock_mhz"], row["device_memory_clock_mhz"]) == (1300.0, 801.0)
        assert (row["device_temperature_c"], row["device_power_w"]) == (52.0, 7.0)
        assert row["device_throttling"] == "too hot"
        assert row["overhead_s"] == row["overhead_end_to_end_s"] == 0  # by that clock: waiting is no job


def test_a_device_is_told_of_in_the_report_with_its_throttling_and_its_changing_clock(finished: Any) -> None:
    report = (finished[1].path / "report.md").read_text(encoding="utf-8")
    assert (
        "Calls were timed by the clock of the device's accelerator; the device was drained before and after each."
        in report
    )
    assert "**The device was throttled** in 4 of 4 workers: too hot." in report
    assert "| a toy | 1300 MHz | 52 °C | too hot |" in report


def test_a_device_tells_the_energy_of_a_call(finished: Any) -> None:
    known = records(finished[1].costs)
    assert [row["device_energy_j"] for row in known] == pytest.approx([JOULES] * 2)
    assert "| device's energy a call |" in (finished[1].path / "report.md").read_text(encoding="utf-8")


def test_a_device_has_no_bound_by_the_processor(finished: Any) -> None:
    assert finished[1].latency["bound_s"].isna().all()
    assert finished[1].machine.empty


def test_what_nobody_has_a_clock_for_is_timed_by_the_hosts(world: World) -> None:
    world.add("toys", SOURCE)
    result, finished = run("--runtimes", "toy")
    assert result.exit_code == 0, result.output
    assert set(finished.processes["clock"]) == {"host"}
    assert finished.processes["device_throttling"].isna().all()
    assert set(finished.processes["clock_reason"]) == {"no plugin gives an accelerator"}
    report = (finished.path / "report.md").read_text(encoding="utf-8")
    assert "Calls were timed by the host's clock: no plugin gives an accelerator." in report
    assert "clock of the device" not in report
    assert seconds(finished)["plain-lstm@toy", "compute"] != pytest.approx(COMPUTE_NS / 1e9)


def test_a_plugin_that_gives_the_clock_alone_times_another_plugins_runtime(world: World) -> None:
    world.add("toys", SOURCE)
    world.add("clock", f"import harness, toy_devices\n{CLOCK}")
    _, finished = run("--runtimes", "toy")
    assert seconds(finished)["plain-lstm@toy", "compute"] == pytest.approx(COMPUTE_NS / 1e9)


def test_a_devices_caches_are_emptied_before_every_call_and_outside_its_window(world: World) -> None:
    world.add("toys", SOURCE + CLOCK)
    _, finished = run("--runtimes", "toy", "--cold-cache")
    known = seconds(finished)
    assert known["plain-lstm@toy", "compute"] == pytest.approx(COLD_NS / 1e9)
    assert known["plain-lstm@toy", "end-to-end"] == pytest.approx((COLD_NS + 2 * COPY_NS) / 1e9)
    assert set(finished.latency["caches"]) == {"cold"}
    assert "1 thread a call, cold caches." in (finished.path / "report.md").read_text(encoding="utf-8")


def test_caches_that_nobody_can_empty_are_refused_with_the_next_step(world: World) -> None:
    world.add("toys", SOURCE)
    _, finished = run("--runtimes", "toy", "--cold-cache")
    (row,) = [row for row in records(finished.trials) if row["kind"] == "latency"]
    said = "nobody here can empty the caches of 'toy' (no plugin gives an accelerator); leave --cold-cache out"
    assert (row["status"], row["reason"]) == ("unsupported", said)


def test_the_hosts_caches_are_emptied_by_reading_more_than_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, text in enumerate(("48K", "2048K", "4M", "words", "")):
        (tmp_path / f"index{place}").mkdir()
        (tmp_path / f"index{place}" / "size").write_text(f"{text}\n", encoding="ascii")
    assert largest_cache_bytes(tmp_path) == 4 * 2**20
    assert largest_cache_bytes(tmp_path / "nothing") == UNTOLD_BYTES
    read: list[int] = []

    class Memory:
        def __init__(self, size: int) -> None:
            self.size = size

        def __len__(self) -> int:
            return self.size

        def max(self) -> None:
            read.append(8 * self.size)

    monkeypatch.setattr(np, "ones", Memory)
    caches = HostCaches(tmp_path)
    caches.evict()
    caches.evict()
    assert read == [8 * 2**20] * 2


def test_the_host_cannot_empty_the_caches_of_several_cores(world: World) -> None:
    Path("toy.toml").write_text(SUITE.replace('device = "toy"', "threads = 2"), encoding="utf-8")
    result = CliRunner().invoke(main, ["run", "toy.toml", "--out", "out", "--quiet", "--cold-cache"])
    assert result.exit_code == 2
    assert result.stderr == (
        "harness: --cold-cache: on the cpu the caches of one core can be emptied; leave it out, or --threads 1\n"
    )


def test_on_the_host_a_run_with_cold_caches_says_so_and_has_no_row_in_common_with_a_warm_one(world: World) -> None:
    suite = SUITE.replace('device = "toy"', "").replace("instances = 2", "instances = 1")
    _, warm = run(suite=suite)
    assert warm.latency["caches"].isna().all()
    Path("out").rename("warm")
    _, cold = run("--cold-cache", suite=suite)
    assert set(cold.latency["caches"]) == {"cold"}
    assert set(cold.processes["clock"]) == {"host"}
    assert set(cold.trials["status"]) == {"ok"}
    result = CliRunner().invoke(main, ["compare", "warm", "out"])
    assert result.exit_code == 2
    assert result.stderr.startswith("harness: no latency row is in both runs.")
    assert "single-stream 1×5 cold caches" in result.stderr


MIXED = """
import harness, pathlib, toy_devices

def open(name):
    for place in ("checked", "timed"):  # by the first two workers
        try:
            pathlib.Path(place).touch(exist_ok=False)
            return toy_devices.toy(name)
        except FileExistsError:
            pass
    raise harness.Unsupported("accelerator 'once' opens no more")

@harness.hookimpl
def harness_accelerators():
    return [harness.Accelerator("once", "", open)]
"""


def test_calls_that_two_clocks_have_timed_are_never_one_row(world: World) -> None:
    world.add("toys", SOURCE)
    world.add("once", MIXED)
    result, finished = run("--runtimes", "toy")
    (row,) = [row for row in records(finished.trials) if row["kind"] == "latency"]
    said = "'toy' has been timed by the device's clock in this run, and would be by the host's here (accelerator 'once'"
    assert (result.exit_code, row["status"]) == (1, "failed")
    assert row["reason"].startswith(said), row["reason"]
    assert set(finished.processes["clock"]) == {"device"}


def catalog_of(*accelerators: Accelerator) -> Catalog:
    plugin = Plugin("own", "own", "1")
    return Catalog((plugin,), tuple(Entry("accelerator", one.name, one, plugin) for one in accelerators))


def devices_of(**opens: Any) -> Devices:
    return Devices(lambda: catalog_of(*(Accelerator(name, "", own) for name, own in opens.items())))


def test_a_device_is_opened_once_by_the_first_that_knows_it_and_never_for_the_cpu() -> None:
    asked: list[tuple[str, str]] = []

    def opens(who: str, names: str) -> Any:
        def open_(name: str) -> Any:
            asked.append((who, name))
            if name not in names.split():
                raise Unsupported(f"{name} is none of mine")
            return Card(state=lambda: DeviceState(name=f"{name} of {who}"))

        return open_

    devices = devices_of(a=opens("a", "mps"), b=opens("b", "mps xpu"), c=opens("c", "xpu"))
    assert devices.clock("cpu") is None
    found = [getattr(devices.told(name)[0], "name", None) for name in ("xpu", "xpu", "mps", "cuda", "cuda")]
    assert found == ["xpu of b", "xpu of b", "mps of a", None, None]
    assert asked == [("a", "xpu"), ("b", "xpu"), ("a", "mps"), ("a", "cuda"), ("b", "cuda"), ("c", "cuda")]


CLOCKS = {
    "counts microseconds": (
        lambda begin, end: (end - begin) // 1000,
        r"its clock counted \d\.?\d*e-05 s while 0\.\d+ s passed",
    ),
    "counts picoseconds": (lambda begin, end: (end - begin) * 1000, r"its clock counted \d+ s while 0\.\d+ s passed"),
    "stands still": (lambda begin, end: 0, r"its clock counted 0 s while 0\.\d+ s passed"),
    "goes back": (lambda begin, end: begin - end, r"elapsed_ns gave -\d+; it must give whole nanoseconds from 0"),
    "gives seconds": (lambda begin, end: (end - begin) / 1e9, r"elapsed_ns gave 0\.\d+; it must give whole"),
    "gives nothing": (lambda begin, end: None, r"elapsed_ns gave None; it must give whole nanoseconds from 0"),
    "fails": (fails, r"elapsed_ns failed: ValueError: it is broken"),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_is_none_is_not_used_and_the_next_plugins_is(clock: str) -> None:
    elapsed_ns, reason = CLOCKS[clock]
    alone = devices_of(bad=lambda name: Card(elapsed_ns=elapsed_ns))
    assert alone.whose("card") == "host"
    assert re.search(f"^accelerator 'bad': {reason}", alone.told("card")[1]), alone.told("card")
    with pytest.raises(Unsupported, match=r"^nobody here can empty the caches of 'card' \(accelerator 'bad': "):
        alone.evict("card")
    beside = devices_of(bad=lambda name: Card(elapsed_ns=elapsed_ns), good=lambda name: Card())
    assert (beside.whose("card"), beside.told("card")) == ("device", (DeviceState(name="a card"), ""))


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        (fails, "open failed: ValueError: it is broken"),
        (lambda name: None, "open gave a NoneType without drain, mark, elapsed_ns, evict, state, energy_j"),
        (lambda name: Card(drain=3), "open gave a Card without drain"),
        (lambda name: Card(drain=fails), "drain failed: ValueError: it is broken"),
        (lambda name: Card(mark=fails), "mark failed: ValueError: it is broken"),
    ],
)
def test_what_a_plugin_does_wrong_is_said_of_its_accelerator(opened: Any, reason: str) -> None:
    assert devices_of(bad=opened).told("card") == (None, f"accelerator 'bad': {reason}")


def test_another_clock_than_before_is_refused_with_why_it_is_another() -> None:
    devices = devices_of(a=lambda name: Card(), b=fails)
    devices.agree("cpu", None)
    devices.agree("cpu", "host")
    devices.agree("card", None)
    devices.agree("card", "device")
    with pytest.raises(
        HarnessError, match=r"^'card' has been timed by the host's clock in this run, and would be by the"
    ):
        devices.agree("card", "host")
    with pytest.raises(
        HarnessError, match=r"by the host's here \(accelerator 'b': open failed: ValueError: it is broken\);"
    ):
        devices_of(b=fails).agree("card", "device")


@pytest.mark.parametrize(
    ("states", "throttling"),
    [
        ([DeviceState()], None),
        ([DeviceState(throttling="")], "none"),
        (
            [DeviceState(throttling=""), DeviceState(throttling="power, heat"), DeviceState(throttling="heat")],
            "heat, power",
        ),
    ],
)
def test_that_a_device_is_not_throttled_is_told_from_that_it_says_nothing(
    states: list[DeviceState], throttling: str | None
) -> None:
    row = device_row(states)
    assert (row["clock"], row["device_throttling"]) == ("device", throttling)
    assert row["device_clock_mhz"] is None


def test_of_several_states_the_worst_is_told_and_what_one_does_not_say_is_told_by_another() -> None:
    first = DeviceState("a card", 1500.0, 900.0, 50.0, 30.0)
    row = device_row([first, DeviceState(None, 1200.0, None, 61.0, 20.0), DeviceState(None, 1400.0, 950.0, 40.0)])
    assert list(row.values()) == ["device", None, "a card", 1200.0, 900.0, 61.0, 30.0, None]


def test_no_state_is_a_hosts() -> None:
    assert device_row([]) == {"clock": "host", **dict.fromkeys(list(device_row([]))[1:])}


def test_emptying_the_hosts_caches_reads_all_of_a_memory_that_is_really_there() -> None:
    caches = HostCaches(Path("nowhere"))
    caches.evict()
    assert isinstance(caches._memory, np.ndarray)
    assert caches._memory.nbytes == 2 * UNTOLD_BYTES


def test_an_accelerator_is_checked_by_its_name_or_its_plugins_on_the_device_that_is_named(world: World) -> None:
    world.add("toys", SOURCE + CLOCK)
    bad = "class Slow(toy_devices.Card):\n    def elapsed_ns(self, begin, end): return (end - begin) // 1000\n"
    given = (
        "@harness.hookimpl\ndef harness_accelerators(): return [harness.Accelerator('slow', '', lambda name: Slow())]"
    )
    world.add("clocks", f"import harness, toy_devices\n{bad}{given}")

    def checked(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["check", *arguments])
        return result.exit_code, result.stdout

    code, text = checked("toys", "--device", "toy", "--checks", "accelerator")
    assert (code, text.split()[:3]) == (0, ["ok", "toys", "accelerator"]), text
    code, text = checked("slow", "--device", "toy")
    assert code == 1
    assert re.search(r"its clock counted \d\.?\d*e-05 s while 0", text), text
    assert "elapsed_ns must give nanoseconds between two marks" in text
    code, text = checked("toys", "--checks", "accelerator")
    assert (code, text.split()[0]) == (0, "unsupported"), text
    assert "'cpu' is no toy" in text
