"""How long a report of a large run takes, and how much memory: 1,000 variants in ten shapes, a million samples.

Every latency is made up; no clock is read but the report's own.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from harness.environment import environment
from harness.report import write_report
from harness.schema import TRIAL_COLUMNS
from harness.store import RunFolder

SLICES, INSTANCES, CALLS = 5, 3, 4
SHAPES = tuple(2**power for power in range(10))


def planned(variants: int) -> list[dict[str, Any]]:
    """A parity and ten latency trials of every variant."""
    size = {"input_size": 8, "hidden_size": 32, "num_layers": 1}
    where = {"device": "cpu", "dtype": "float32", "compute_dtype": "float32", "threads": 1}
    rows = []
    for number in range(variants):
        own: dict[str, Any] = {"variant": f"model-{number}@runtime", "model": f"model-{number}", "runtime": "runtime"}
        own |= {"architecture": "lstm", "task": "task", "baseline": "model-0@runtime", "twin": 0} | size | where
        blank = dict.fromkeys(TRIAL_COLUMNS[:-3])
        rows.append(blank | own | {"trial": f"{number}-parity", "kind": "parity"})
        for batch in SHAPES:
            shape = {"scenario": "offline", "batch": batch, "time": 28}
            rows.append(blank | own | shape | {"trial": f"{number}-{batch}", "kind": "latency"})
    return rows


def samples(trial: dict[str, Any], slice_: int, rng: random.Random) -> Iterator[list[Any]]:
    """The calls of a trial in one slice, whose process has the slice's number."""
    for instance in range(1, INSTANCES + 1):
        typical = 1e-3 * trial["batch"] * rng.lognormvariate(0, 0.01)
        for turn, boundary in enumerate(("compute", "end-to-end")):
            for call in range(CALLS):
                elapsed = typical * rng.lognormvariate(0, 0.01)
                yield [trial["trial"], slice_, slice_, instance, boundary, 0, turn, call, "1.0", elapsed, 0]


def write_run(path: Path, variants: int) -> None:
    """Write the run as an engine does."""
    rng, trials = random.Random(1), planned(variants)
    header: dict[str, Any] = {
        "name": "big",
        "suite": {"latency": {}},
        "baselines": {"lstm": "model-0@runtime"},
        "floors": [],
    }
    header |= {"plugins": [], "environment": environment([], sys.argv), "trials": trials}
    folder = RunFolder(path, header)
    for slice_ in range(1, SLICES + 1):
        timed = [row for trial in trials if trial["kind"] == "latency" for row in samples(trial, slice_, rng)]
        folder.append_process({"slice": slice_, "process": slice_}, samples=timed)
    at = ("slice", "process", "instance")
    keys = [(slice_, slice_, instance) for slice_ in range(1, SLICES + 1) for instance in range(1, INSTANCES + 1)]
    instances = [dict(zip(at, key, strict=True)) | {"warmup_calls": 10, "is_steady": True} for key in keys]
    for trial in trials:
        end: dict[str, Any] = {"trial": trial["trial"], "status": "ok", "reason": ""}
        folder.append(end | ({"instances": instances} if trial["kind"] == "latency" else {}))
    folder.close()


def main() -> None:
    """Write the run into a temporary folder, make its report, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        write_run(path, parser.parse_args().variants)
        began = perf_counter()
        run = write_report(path)
        took = perf_counter() - began
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{len(run.latency):,} rows of latency, {len(run.samples):,} samples: {took:.1f} s, at most {peak:.0f} MiB")


if __name__ == "__main__":
    main()
