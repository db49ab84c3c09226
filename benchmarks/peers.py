"""What other tools say of the same calls on the same machine: pytest-benchmark and pyperf, where they are installed."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from benchmarks.peer_arm import VARIABLE
from benchmarks.recording import append_rows, neighbour, read_rows
from benchmarks.workloads import SLOWDOWNS_PERCENT, slowed_arm
from harness.engine.process import THREAD_VARIABLES

PACKAGES = {"pytest-benchmark": "pytest_benchmark", "pyperf": "pyperf"}
ARMS = ("A1", "A2", *map(slowed_arm, SLOWDOWNS_PERCENT))
SCRIPT = Path(__file__).with_name("peer_arm.py")
TUNED_FALSE_ALARMS = 0.05


@dataclass(frozen=True, slots=True)
class PeerRun:
    """One arm, timed once by another tool with its defaults.

    Attributes:
        values: what the tool keeps: pyperf's means of loops, or pytest-benchmark's min, median and mean; seconds.
        measured_s: seconds inside its clock.
        wall_s: seconds from the start of the command to its end.
    """

    tool: str
    arm: str
    values: tuple[float, ...]
    measured_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class PeerRates:
    """How often a tool's rule calls one arm different from another, over all pairs of runs.

    Attributes:
        rule: in words.
        false_alarms: share of the pairs of identical arms that are called different.
        detections: percent of slowdown to the share of pairs in which the slowed arm is called slower.
        measured_s, wall_s: mean seconds an arm.
        pairs: how many pairs of identical arms; they share runs, so they are not independent.
    """

    tool: str
    rule: str
    false_alarms: float
    detections: dict[int, float]
    measured_s: float
    wall_s: float
    pairs: int


def installed(tool: str) -> bool:
    """Is the tool there?"""
    return importlib.util.find_spec(PACKAGES[tool]) is not None


def run_file(folder: Path, tool: str, workload: str, noise: str) -> Path:
    """Where the tool's runs of a workload are recorded."""
    return folder / f"peers-{tool}-{workload}-{noise}.csv"


def record(folder: Path, tool: str, workload: str, noise: str, rounds: int, seed: int) -> Iterator[float]:
    """Run the tool on every arm, in random order each round, until there are so many rounds; gives wall seconds."""
    file = run_file(folder, tool, workload, noise)
    counts = _counts(file)
    if min(counts.values()) >= rounds:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with neighbour(noise, seed + sum(counts.values())):
        for number in range(min(counts.values()), rounds):
            for k in np.random.default_rng([seed, number]).permutation(len(ARMS)):
                arm = ARMS[k]
                if counts[arm] > number:
                    continue
                run = time_with(tool, f"{workload} {arm}")
                values = " ".join(f"{value:.9g}" for value in run.values)
                row = {"arm": arm, "started_s": time.time() - run.wall_s, "values_s": values}
                append_rows(file, [row | {"measured_s": run.measured_s, "wall_s": run.wall_s}])
                yield run.wall_s


def rounds_done(folder: Path, tool: str, workload: str, noise: str) -> int:
    """How often every arm has been run."""
    return min(_counts(run_file(folder, tool, workload, noise)).values())


def _counts(file: Path) -> dict[str, int]:
    counts = dict.fromkeys(ARMS, 0)
    for row in read_rows(file) if file.exists() else []:
        counts[row["arm"]] += 1
    return counts


def read_runs(file: Path, tool: str) -> list[PeerRun]:
    """The recorded runs of a tool."""
    return [
        PeerRun(
            tool,
            row["arm"],
            tuple(float(value) for value in row["values_s"].split()),
            float(row["measured_s"]),
            float(row["wall_s"]),
        )
        for row in read_rows(file)
    ]


def time_with(tool: str, call: str) -> PeerRun:
    """Have a tool time a call (see `peer_arm`) in processes of its own, by its defaults, one thread.

    Raises:
        RuntimeError: the tool failed; with the last line of what it said.
    """
    environment = dict(os.environ) | dict.fromkeys(THREAD_VARIABLES, "1") | {VARIABLE: call}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        inherited = ",".join([*THREAD_VARIABLES, VARIABLE])
        commands = {
            "pytest-benchmark": [
                *("-m", "pytest", str(SCRIPT), "-q", "-c", os.devnull, "--rootdir", folder, "-p", "no:cacheprovider"),
                f"--benchmark-json={out}",
            ],
            "pyperf": [str(SCRIPT), "--quiet", "-o", str(out), f"--inherit-environ={inherited}"],
        }
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *commands[tool]], env=environment, capture_output=True, text=True)
        wall_s = time.perf_counter() - began
        if done.returncode:
            last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
            raise RuntimeError(f"{tool} failed on '{call}' with exit code {done.returncode}: {last}")
        values, measured_s = (of_pytest_benchmark if tool == "pytest-benchmark" else of_pyperf)(
            json.loads(out.read_text(encoding="utf-8"))
        )
    return PeerRun(tool, call.partition(" ")[2], values, measured_s, wall_s)


def of_pytest_benchmark(result: Any) -> tuple[tuple[float, ...], float]:
    """From its JSON: min, median and mean of the rounds, and the seconds of all rounds."""
    found = result["benchmarks"][0]["stats"]
    return (found["min"], found["median"], found["mean"]), found["total"] * found["iterations"]


def of_pyperf(result: Any) -> tuple[tuple[float, ...], float]:
    """From its JSON: the values of all runs, and the seconds of all loops, warm-up and calibration included."""
    values: list[float] = []
    measured_s = 0.0
    (benchmark,) = result["benchmarks"]
    for run in benchmark["runs"]:
        found = result["metadata"] | benchmark.get("metadata", {}) | run.get("metadata", {})  # from outer to inner
        values += run.get("values", [])
        measured_s += sum(run.get("values", [])) * found.get("loops", 1)
        measured_s += sum(loops * value for loops, value in run.get("warmups", []))
    return tuple(values), measured_s


def rates(tool: str, runs: Sequence[PeerRun]) -> list[PeerRates]:
    """A tool's own rule, and rules with a threshold chosen afterwards so that false alarms are 5 %.

    All pairs of runs are compared. Identical arms: every run of A1 and A2 with every other of them.
    """
    found = []
    if tool == "pyperf":
        found.append(_rates(runs, "its t test", lambda a, b: _t_test(a, b)))
        statistics = {"mean": _mean}
    else:
        statistics = {"min": lambda run: run.values[0], "median": lambda run: run.values[1]}
    for name, statistic in statistics.items():
        threshold = tuned_threshold([statistic(run) for run in runs if run.arm.startswith("A")])

        def beyond(base: PeerRun, own: PeerRun, statistic: Any = statistic, threshold: float = threshold) -> int:
            log = math.log(statistic(own) / statistic(base))
            return 0 if abs(log) <= threshold else int(math.copysign(1, log))

        found.append(_rates(runs, f"{name} beyond {100 * math.expm1(threshold):.1f} %, tuned", beyond))
    return found


def tuned_threshold(values: Sequence[float]) -> float:
    """The size of a log ratio that 5 % of all pairs of identical arms exceed."""
    logs = np.log(np.array(values))
    sizes = [abs(a - b) for a, b in combinations(logs, 2)]
    return float(np.quantile(sizes, 1 - TUNED_FALSE_ALARMS)) if sizes else math.nan


def _rates(runs: Sequence[PeerRun], rule: str, verdict: Any) -> PeerRates:
    identical = [run for run in runs if run.arm.startswith("A")]
    alarms = [verdict(a, b) != 0 for a, b in combinations(identical, 2)]
    detections = {}
    for percent in SLOWDOWNS_PERCENT:
        slowed = [run for run in runs if run.arm == slowed_arm(percent)]
        detections[percent] = _share([verdict(a, b) > 0 for a, b in product(identical, slowed)])
    measured_s, wall_s = (float(np.mean([getattr(r, name) for r in runs])) for name in ("measured_s", "wall_s"))
    return PeerRates(runs[0].tool, rule, _share(alarms), detections, measured_s, wall_s, len(alarms))


def _t_test(base: PeerRun, own: PeerRun) -> int:
    """pyperf's `compare_to`: Student's two-sample t test at 5 %; samples of unequal size it takes as different."""
    difference = _mean(own) - _mean(base)
    is_different = len(own.values) != len(base.values) or scipy_stats.ttest_ind(own.values, base.values).pvalue < 0.05
    return int(math.copysign(1, difference)) if is_different else 0


def _mean(run: PeerRun) -> float:
    return float(np.mean(run.values))


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags) if flags else math.nan
