"""Record what the engine's worker measures: the medians of instances, process by process, in tables that can grow."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.workloads import WORKLOADS, Workload, identical_arms, slowed_arm, slowed_arms
from harness.engine.process import WorkerProcess

TURN_SECONDS = 60.0  # more measured time than any arm needs, so that the number of calls decides
PATIENCE_SECONDS = 300.0  # for one request
NOISES = ("quiet", "bursty")
INSTANCE_COLUMNS = ("process", "instance", "arm", "median_s", "measured_s", "counted_calls", "disturbed_calls",
                    "warmup_calls", "is_steady")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Recording:
    """A series of processes that are recorded alike.

    Attributes:
        name: names its files: workload, noise and, for two arms alone, `pair`.
        workload: what is called.
        noise: `quiet` or `bursty`.
        arms: the names of the arms that take turns in every instance.
    """

    name: str
    workload: Workload
    noise: str
    arms: tuple[str, ...]

    def files(self, folder: Path) -> tuple[Path, Path]:
        """The tables of its instances and of its processes."""
        return folder / f"{self.name}-instances.csv", folder / f"{self.name}-processes.csv"


def recordings(copies: int) -> dict[str, Recording]:
    """Every recording there is, by name; `copies` is how many identical arms the large ones have."""
    many = (*identical_arms(copies), *slowed_arms())
    pair = ("A1", slowed_arm(2))
    found = [
        Recording(f"{name}-{noise}{suffix}", WORKLOADS[name], noise, arms)
        for suffix, arms in (("", many), ("-pair", pair))
        for name in ("numpy", "torch")
        for noise in NOISES
    ]
    return {recording.name: recording for recording in found}


@contextmanager
def neighbour(noise: str, seed: int) -> Iterator[None]:
    """Have a bursty neighbour process while the block runs, or none if it is to be quiet."""
    if noise == "quiet":
        yield
        return
    command = [sys.executable, str(Path(__file__).with_name("neighbour.py")), str(seed)]
    process = subprocess.Popen(command, start_new_session=True)  # Ctrl-C goes to this process alone
    try:
        yield
    finally:
        process.kill()
        process.wait()


def recorded(recording: Recording, folder: Path) -> list[int]:
    """The numbers of the processes that are complete."""
    file = recording.files(folder)[1]
    return [int(row["process"]) for row in read_rows(file)] if file.exists() else []


def record(recording: Recording, folder: Path, processes: int, seed: int) -> Iterator[float]:
    """Add processes until there are so many; gives the wall seconds of each as it is done.

    A process whose rows are written is kept when this is stopped; the next call goes on behind it.

    Raises:
        ValueError: what is there has other arms or columns.
    """
    done = recorded(recording, folder)
    if len(done) >= processes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    instances, table = recording.files(folder)
    earlier = _rows_if_any(instances)
    if earlier and {row["arm"] for row in earlier} != set(recording.arms):
        raise ValueError(f"'{instances}' has other arms than {', '.join(recording.arms)}; record into another folder")
    number = max([-1, *done, *(int(row["process"]) for row in earlier)]) + 1
    with neighbour(recording.noise, seed + number):
        for k in range(number, number + processes - len(done)):
            rows, facts = one_process(recording, k, seed)
            append_rows(instances, rows)  # first, so that a process in the other table is whole
            append_rows(table, [facts])
            yield float(facts["wall_s"])


def one_process(recording: Recording, number: int, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Start a worker, sample every instance, and end it: the rows of its instances, and its own."""
    rng = np.random.default_rng([seed, number, *recording.name.encode()])
    began = time.perf_counter()
    facts: dict[str, Any] = {"process": number, "started_s": time.time()}
    rows: list[dict[str, Any]] = []
    with WorkerProcess(threads=1) as worker:
        worker.ask("start_timing", PATIENCE_SECONDS)
        for instance in range(recording.workload.instances):
            _open(worker, recording, rng)
            if instance == 0:
                facts["ready_s"] = time.perf_counter() - began
            rows += [{"process": number, "instance": instance} | row for row in _sample(worker, recording, rng)]
            worker.ask("release", PATIENCE_SECONDS)
        noise = worker.ask("finish_timing", PATIENCE_SECONDS)
    return rows, facts | {"wall_s": time.perf_counter() - began} | noise


def _open(worker: WorkerProcess, recording: Recording, rng: np.random.Generator) -> None:
    workload = recording.workload
    size = {name: getattr(workload.size, name) for name in ("input_size", "hidden_size", "num_layers")}
    options = {"size": size, "device": "cpu", "dtype": "float32", "threads": 1, "cache_dir": None}
    for k in rng.permutation(len(recording.arms)):  # no arm has the first place in memory every time
        key = recording.arms[k]
        worker.ask("open", PATIENCE_SECONDS, key=key, model=workload.model, runtime=workload.runtime, **options)


def _sample(worker: WorkerProcess, recording: Recording, rng: np.random.Generator) -> list[dict[str, Any]]:
    arms = [recording.workload.arm(name) for name in recording.arms]
    points = [{"key": arm.name, "scenario": "single-stream", "batch": 1, "time": arm.time, "task": ""} for arm in arms]
    seed = int(rng.integers(2**31))
    arguments = {
        "points": points,
        "calls": recording.workload.calls,
        "budget": TURN_SECONDS,
        "seed": seed,
        "boundaries": ["compute"],
    }
    return instance_rows(recording.arms, worker.ask("sample", PATIENCE_SECONDS, **arguments))


def instance_rows(arms: Sequence[str], reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What one instance gave, a row an arm: the median of counted calls, and the seconds of all timed calls.

    Call 0 of a turn was timed, so it costs; it follows another arm's turn, so it does not count.
    """
    counted: dict[int, list[float]] = defaultdict(list)
    measured: dict[int, float] = defaultdict(float)
    disturbed: dict[int, int] = defaultdict(int)
    for point, _, _, _, call, _, elapsed_s, is_disturbed in reply["samples"]:
        measured[point] += elapsed_s
        if call > 0:
            counted[point].append(elapsed_s)
            disturbed[point] += int(bool(is_disturbed))
    warmups = {point: (calls, is_steady) for point, calls, is_steady in reply["warmup"]}
    rows = []
    for point, arm in enumerate(arms):
        calls, is_steady = warmups[point]
        middle, number = median(counted[point]), len(counted[point])
        values = (arm, middle, measured[point], number, disturbed[point], calls, int(is_steady))
        rows.append(dict(zip(INSTANCE_COLUMNS[2:], values, strict=True)))
    return rows


def append_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to a table; the first ones name its columns.

    Raises:
        ValueError: the table has other columns; it was made by another version.
    """
    is_new = not file.exists()
    if not is_new:
        with file.open(newline="", encoding="utf-8") as stream:
            columns = next(csv.reader(stream))
        if columns != list(rows[0]):
            raise ValueError(f"'{file}' has other columns than its new rows; record into another folder")
    with file.open("a", newline="", encoding="utf-8") as stream:
        if not is_new and not file.read_bytes().endswith(b"\n"):
            stream.write("\r\n")  # the last writer was stopped within a row, which stays and is never read
        writer = csv.DictWriter(stream, list(rows[0]))
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a table, but for those that are not whole."""
    with file.open(newline="", encoding="utf-8") as stream:
        return [row for row in csv.DictReader(stream) if None not in row.values()]


def _rows_if_any(file: Path) -> list[dict[str, str]]:
    return read_rows(file) if file.exists() else []
