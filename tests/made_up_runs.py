"""Runs written by hand, in folders like any other: every latency in them is known, and no clock was read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.estimates import NOT_SUSTAINED, SUSTAINED
from harness.schema import PROCESS_COLUMNS, TRIAL_COLUMNS
from harness.store import RunFolder

SETTING = (
    "task",
    "architecture",
    "hidden_size",
    "num_layers",
    "device",
    "dtype",
    "threads",
)  # of all a variant's trials
Key = tuple[int, int, int]  # slice, process, instance
Probe = tuple[float, str]  # a load, and what came of it
JITTER = (-2, -1, 0, 1, 2)  # of five processes, in units of a spread
HALF = 2.7764451051977987 / math.sqrt(2)  # of their interval, in the same units: Student's t(4) times √2.5 / √5
ENVIRONMENT: dict[str, Any] = {
    "machine": "x86_64",
    "os": "Linux-6.1",
    "cpu_model": "A CPU",
    "cpu_usable_count": 2,
    "python": "3.11.9",
    "python_implementation": "CPython",
    "command": ["harness", "run"],
    "versions": {"rnn-harness": "0.1.0"},
}


@dataclass(frozen=True)
class Timed:
    """A variant that was timed.

    Attributes:
        variant: `model@runtime`, perhaps with `[python]`.
        medians: the compute boundary's, in seconds; end to end takes twice as long.
        row: what else its latency trial says, such as `baseline`.
        status, reason: how its latency trial ended; what did not end as ok has no samples.
        twins: medians of the same variant beside itself.
        steady: was a steady state seen in every instance.
        disturbed: how many of each instance's three calls that count are marked.
    """

    variant: str
    medians: Mapping[Key, float] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)
    status: str = "ok"
    reason: str = ""
    twins: Sequence[Mapping[Key, float]] = ()
    steady: bool = True
    disturbed: int | None = 0


def five(seconds: float, spread: float = 0.0) -> dict[Key, float]:
    """One instance in one process in each of five slices; their logarithms lie `spread` apart."""
    return {(s, 10 + s, 1): seconds * math.exp(spread * place) for s, place in enumerate(JITTER, start=1)}


def trial_row(name: str, kind: str, variant: str, **changes: Any) -> dict[str, Any]:
    """A planned trial, as `run.json` holds it."""
    model, _, rest = variant.partition("@")
    runtime, _, python = rest.removesuffix("]").partition("[")
    row = dict.fromkeys(TRIAL_COLUMNS[:-3]) | {"trial": name, "kind": kind, "variant": variant, "model": model}
    row |= {"runtime": runtime, "python": python or None, "task": "t", "architecture": "lstm", "input_size": 3}
    row |= {
        "hidden_size": 6,
        "num_layers": 1,
        "device": "cpu",
        "dtype": "float32",
        "compute_dtype": "float32",
        "threads": 1,
    }
    row |= {"twin": 0}
    for part in ("", "runtime_", "task_"):
        row |= {f"{part}distribution": "rnn-sound", f"{part}distribution_version": "1"}
    if kind in ("latency", "calibration"):
        row |= {"scenario": "single-stream", "batch": 1, "time": 5, "baseline": "a@r"}
    return row | changes


def process_row(slice_: int, **changes: Any) -> dict[str, Any]:
    """What a quiet machine says of a worker process."""
    row = dict.fromkeys(PROCESS_COLUMNS, 0.0) | {"slice": slice_, "process": 10 + slice_, "task": "t", "runtime": "r"}
    row |= {
        "python": "",
        "trial": None,
        "cpus": "0-1",
        "clock": "host",
        "clock_reason": None,
        "device_name": None,
        "device_throttling": None,
        "governor": "performance",
        "started_s": 1.7e9,
        "seconds": 2.0,
        "canary_s": 1e-4,
    }
    return row | {"overhead_s": 1e-7, "overhead_end_to_end_s": 4e-7} | changes


def samples(
    medians: Mapping[Key, float], boundaries: Sequence[str] = ("compute", "end-to-end"), disturbed: int | None = 0
) -> Iterable[list[Any]]:
    """Rows of the samples table: one turn an instance, whose first call takes a thousand times as long."""
    for turn, boundary in enumerate(boundaries):
        for key, seconds in medians.items():
            for call in range(4):
                elapsed = (1 + turn) * seconds * (1000 if call == 0 else 1)
                marked = "" if disturbed is None else int(0 < call <= disturbed)
                yield [*key, boundary, 0, turn, call, f"{1.7e9 + call:.6f}", elapsed, marked]


def write_processes(
    folder: RunFolder, samples: Mapping[str, Iterable[Sequence[Any]]], processes: Iterable[Mapping[str, Any]] = ()
) -> None:
    """Keep samples, by trial and without it, as an engine does: one record and one file a process.

    Of a process that is not described nothing is known but its number and its slice.
    """
    rows: dict[int, list[list[Any]]] = {}
    for trial, calls in samples.items():
        for call in calls:
            rows.setdefault(call[1], []).append([trial, *call])
    for process in processes:
        folder.append_process(process, samples=rows.pop(process.get("process", -1), []))
    for number, calls in rows.items():
        folder.append_process({"slice": calls[0][1], "process": number}, samples=calls)


def write_run(
    path: Path,
    *variants: Timed,
    processes: Iterable[Mapping[str, Any]] = (),
    latency: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] = ENVIRONMENT,
    matrices: Sequence[Mapping[str, Any]] = (),
    records: Iterable[Mapping[str, Any]] = (),
    **header: Any,
) -> Path:
    """Write a run in which every variant passed parity and was timed, or failed to be.

    All have the same weight matrices; `records` are what else the journal holds.
    """
    trials: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    rows: dict[str, Iterable[list[Any]]] = {}

    def add(kind: str, timed: Timed, medians: Mapping[Key, float], **changes: Any) -> None:
        name = f"{len(trials) + 1:04d}-{kind}"
        trials.append(trial_row(name, kind, timed.variant, **changes))
        end: dict[str, Any] = {"trial": name, "status": timed.status, "reason": timed.reason}
        if kind == "parity":
            end["matrices"] = list(matrices)
        if medians:
            rows[name] = samples(medians, disturbed=timed.disturbed)
            warm_up = {"warmup_calls": 10, "is_steady": timed.steady}
            at = ("slice", "process", "instance")
            end["instances"] = [dict(zip(at, key, strict=True)) | warm_up for key in medians]
        ends.append(end)

    for timed in variants:
        own = {name: timed.row[name] for name in SETTING if name in timed.row}
        add("parity", timed, {}, **own)
        add("latency", timed, timed.medians, **timed.row)
    for timed in variants:
        for number, medians in enumerate(timed.twins, start=1):
            add("calibration", timed, medians, **timed.row, twin=number)
    facts = {"name": path.name, "suite": {"latency": dict(latency or {})}, "baselines": {"lstm": "a@r"}, "floors": []}
    folder = RunFolder(path, {**facts, "plugins": [], "environment": dict(environment), "trials": trials, **header})
    write_processes(folder, rows, processes)
    for record in (*records, *ends):
        folder.append(record)
    folder.close()
    return path


def probes_of(limit: float, step: float = 1.04) -> list[Probe]:
    """A search that ended with this limit, of which so many times as much was not sustained."""
    return [(limit / 2, SUSTAINED), (limit * 2, NOT_SUSTAINED), (limit, SUSTAINED), (limit * step, NOT_SUSTAINED)]


def load_rows(slice_: int, probes: Sequence[Probe], scenario: str, **changes: Any) -> list[dict[str, Any]]:
    """Rows of the loads table, of one worker."""
    stream = scenario == "stream"
    return [
        {"slice": slice_, "probe": number, "rate_per_s": None if stream else amount}
        | {"streams": int(amount) if stream else None, "requests": 700, "bound_s": 0.05, "p50_s": 0.001 * slice_}
        | {"p99_s": 0.002 * slice_, "p99_bound_s": 0.003, "misses": 7, "generator_p99_s": 1e-5, "mean_batch": 1.5}
        | {"busy_s": 1.0, "real_time_factor": 0.01 if stream else None, "verdict": verdict}
        | changes
        for number, (amount, verdict) in enumerate(probes, start=1)
    ]


def write_loads(
    path: Path,
    found: Mapping[str, Mapping[int, Sequence[Probe]]],
    scenario: str = "server",
    ends: Mapping[str, str] | None = None,
    canary: Sequence[float] = (),
    row: Mapping[str, Any] | None = None,
    **header: Any,
) -> Path:
    """Write a run with one load trial a variant, and what each of its workers was offered, by slice.

    Args:
        found: by variant and slice; of a slice without probes nothing is known.
        ends: how a model's load trial ended, where that is not ok: a status, or `status: reason`.
        canary: what it took, in seconds, in a worker that timed latencies; one a slice.
        row: what else every load that was offered says, such as `bound_s`.
    """
    trials: list[dict[str, Any]] = []
    kept: list[dict[str, Any]] = []
    for number, (variant, slices) in enumerate(found.items(), start=1):
        own = {"scenario": scenario, "batch": 1, "time": 5, "baseline": "a@r"}
        trials.append(trial_row(f"{number:04d}-parity", "parity", variant))
        trials.append(trial_row(f"{number:04d}-load", "load", variant, **own))
        rows = [each for slice_, probes in slices.items() for each in load_rows(slice_, probes, scenario, **row or {})]
        kept.append({"trial": f"{number:04d}-parity", "status": "ok", "reason": ""})
        status, _, reason = (ends or {}).get(variant.partition("@")[0], "ok").partition(": ")
        kept.append({"trial": f"{number:04d}-load", "status": status, "reason": reason, "loads": rows})
    facts = {"name": "made up", "baselines": {"lstm": "a@r"}, "floors": [], "plugins": [], "environment": ENVIRONMENT}
    for planned in trials:
        for column in ("status", "reason", "log"):
            planned.pop(column, None)
    folder = RunFolder(path, facts | {"trials": trials} | header)
    write_processes(folder, {}, [process_row(slice_, canary_s=took) for slice_, took in enumerate(canary, start=1)])
    for record in kept:
        folder.append(record)
    folder.close()
    return path
