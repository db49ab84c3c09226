"""The store: a run's folder, its append-only journal, and the tables derived from it.

A folder holds `run.json` (environment, suite, plugins), `journal.jsonl` (one record a finished trial or process),
`samples/` (raw samples, one CSV a latency trial), `weights/` (trained weights and their test predictions), `cache/`
(what runtimes keep for the run, such as exported graphs), `logs/` (what workers printed), and what is derived and can
be made again at any time: `tables/` and `report.md`.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import pandas as pd

from harness.contract import HarnessError, one_line

SCHEMA_VERSION = 2
JOURNAL = "journal.jsonl"
RUN_FILE = "run.json"
STATUSES = {
    "ok": "finished; its numbers stand",
    "wrong": "parity failed: it does not compute what its architecture says, so its latency is withheld; "
    "for a training step, its gradients are wrong",
    "unsupported": "the runtime says it cannot do this, with its reason",
    "failed": "an exception, with its type, message and place",
    "crashed": "the worker process died, with the signal or exit code",
    "timed-out": "took longer than `trial_seconds`",
    "skipped": "not tried, because something it needs is missing, with what",
}
GOOD_STATUSES = frozenset({"ok", "unsupported", "skipped"})

TRIAL_COLUMNS = [
    *("trial", "kind", "variant", "model", "runtime", "python", "distribution", "distribution_version"),
    *("architecture", "task"),
    *("input_size", "hidden_size", "num_layers", "device", "dtype", "threads", "seed", "trained_by", "scenario"),
    *("batch", "time", "baseline", "twin", "status", "reason"),
]
PARITY_COLUMNS = [
    *("trial", "process", "moment", "case", "part", "rmse", "yardstick_rmse", "reference_rms", "max_abs_error"),
    *("yardstick", "problem"),
]
GRADIENT_COLUMNS = ["trial", "process", "what", "error", "allowed", "expected"]
SCORE_COLUMNS = ["trial", "metric", "score", "trivial_score", "rows", "trainer_score", "agreeing_rows"]
CURVE_COLUMNS = ["trial", "step", "epoch", "training_loss", "score"]
SAMPLE_COLUMNS = [
    *("trial", "slice", "process", "instance", "boundary", "block", "turn", "call", "start_s", "elapsed_s"),
    "disturbed",
]
INSTANCE_COLUMNS = ["trial", "slice", "process", "instance", "warmup_calls", "is_steady"]
PROCESS_COLUMNS = [
    *("slice", "process", "task", "runtime", "python", "started_s", "seconds"),
    *("canary_s", "overhead_s", "overhead_end_to_end_s", "disturbed_share"),
    *("run_delay_s", "involuntary_switches", "voluntary_switches", "steal_share", "other_busy_share"),
    *("page_faults_major", "page_faults_minor", "gc_collections", "frequency_mhz", "governor", "temperature_c"),
]
NUMERIC_PROCESS_COLUMNS = [c for c in PROCESS_COLUMNS if c not in ("task", "runtime", "python", "governor")]


class RunFolder:
    """A run's folder, open for writing."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Create the folder and write `run.json`.

        Raises:
            HarnessError: the folder exists and is not empty, or cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise HarnessError(f"'{path}' exists and is not empty; choose another --out or remove it")
            for name in ("samples", "weights", "logs", "cache"):
                (path / name).mkdir()
            write_atomically(path / RUN_FILE, json.dumps({"schema_version": SCHEMA_VERSION, **header}, indent=2) + "\n")
            self._journal: IO[bytes] = (path / JOURNAL).open("xb")
        except OSError as error:
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}; choose another --out") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add the record of a finished trial or process; it is on the disk when this returns."""
        line = json.dumps(_json_safe(record), allow_nan=False, separators=(",", ":"))
        self._journal.write(line.encode() + b"\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def write_samples(self, trial: str, rows: Iterable[Sequence[Any]]) -> None:
        """Keep a latency trial's raw samples; call before `append`. Rows are `SAMPLE_COLUMNS` without the first."""
        temporary = self.path / "samples" / f".{trial}.csv"
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(SAMPLE_COLUMNS[1:])
            writer.writerows(rows)
        temporary.replace(self.path / "samples" / f"{trial}.csv")

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


@dataclass(frozen=True)
class Run:
    """A run as it was recorded: tidy tables of observations, one fact a row, units in the column names.

    Attributes:
        path: the run's folder.
        header: `run.json`: environment, suite, plugins, baselines.
        trials: one row per planned trial.
        parity: one row per trial, process, moment, case and part of the output.
        gradients: what training steps were asked; one row per trial, process and question.
        scores: one row per accuracy trial that has a score.
        curves: learning curves; one row per point.
        samples: one row per timed call.
        instances: one row per session that was timed: how it warmed up.
        processes: one row per worker process that timed: what happened on the machine meanwhile.
    """

    path: Path
    header: dict[str, Any]
    trials: pd.DataFrame
    parity: pd.DataFrame
    gradients: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    samples: pd.DataFrame
    instances: pd.DataFrame
    processes: pd.DataFrame

    @property
    def environment(self) -> dict[str, Any]:
        """The facts that could explain a number."""
        facts: dict[str, Any] = self.header["environment"]
        return facts

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per variant, task and device: parity, accuracy and latency with intervals (see `harness.tables`)."""
        from harness.tables import summary

        return summary(self)

    @cached_property
    def calibration(self) -> pd.DataFrame:
        """One row per task: the baseline against itself (see `harness.tables`)."""
        from harness.tables import calibration

        return calibration(self)

    @cached_property
    def latency(self) -> pd.DataFrame:
        """One row per latency trial and boundary: estimates with intervals (see `harness.tables`)."""
        from harness.tables import latency

        return latency(self)


def load(path: str | Path) -> Run:
    """Read a run's folder.

    Raises:
        HarnessError: it is not a run, was written by another schema version, or is damaged (file and line named).
    """
    folder = Path(path)
    header = _read_header(folder)
    planned: dict[str, dict[str, Any]] = {row["trial"]: row for row in header["trials"]}
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("parity", "gradients", "scores", "curves", "instances")
    }
    processes: list[dict[str, Any]] = []
    trials = {
        trial: {**row, "status": "skipped", "reason": "the run ended before this trial"}
        for trial, row in planned.items()
    }
    recorded: set[str] = set()
    for record in _read_journal(folder / JOURNAL):
        if "process" in record:
            processes.append(record["process"])
            continue
        trial = record["trial"]
        if trial not in trials:
            raise HarnessError(
                f"'{folder / JOURNAL}' has a trial '{trial}' that was never planned; the folder is damaged"
            )
        if trial in recorded:
            raise HarnessError(f"'{folder / JOURNAL}' records trial '{trial}' twice; the folder is damaged")
        recorded.add(trial)
        trials[trial] |= {"status": record["status"], "reason": record.get("reason", "")}
        for name, table in rows.items():
            table.extend({"trial": trial, **row} for row in record.get(name, []))
    return Run(
        folder,
        header,
        pd.DataFrame(list(trials.values()), columns=TRIAL_COLUMNS).astype(
            {"seed": "Int64", "batch": "Int64", "time": "Int64"}
        ),
        _numbers(rows["parity"], PARITY_COLUMNS, ["rmse", "yardstick_rmse", "reference_rms", "max_abs_error"]).fillna(
            {"rmse": math.inf, "max_abs_error": math.inf}  # JSON has no infinity
        ),
        _numbers(rows["gradients"], GRADIENT_COLUMNS, ["error", "allowed", "expected"]).fillna({"error": math.inf}),
        _numbers(rows["scores"], SCORE_COLUMNS, ["score", "trivial_score", "trainer_score"]).astype(
            {"agreeing_rows": "Int64"}
        ),
        _numbers(rows["curves"], CURVE_COLUMNS, ["epoch", "training_loss", "score"]),
        _read_samples(folder, trials),
        pd.DataFrame(rows["instances"], columns=INSTANCE_COLUMNS),
        _numbers(processes, PROCESS_COLUMNS, NUMERIC_PROCESS_COLUMNS),
    )


def write_atomically(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_header(folder: Path) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads((folder / RUN_FILE).read_bytes())
    except OSError as error:
        raise HarnessError(f"'{folder}' is not a run: {RUN_FILE} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: {error}") from error
    if not isinstance(header, dict) or "schema_version" not in header:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: it is not a run's header")
    if header["schema_version"] != SCHEMA_VERSION:
        raise HarnessError(
            f"'{folder}' has schema version {header['schema_version']}; this harness reads {SCHEMA_VERSION}"
        )
    if missing := [
        key for key in ("name", "baselines", "floors", "plugins", "environment", "trials") if key not in header
    ]:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: it lacks {', '.join(missing)}")
    return header


def _read_journal(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise HarnessError(f"'{path}' cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                record = json.loads(line)
                if isinstance(record, dict) and "process" in record:
                    _check_process(record["process"])
                elif not isinstance(record, dict) or not {"trial", "status"} <= record.keys():
                    raise ValueError("it is not a trial's record")
                yield record
        except ValueError as error:
            if number == len(lines):
                return  # the run was cut off while it wrote this record
            raise HarnessError(f"'{path}', line {number} is damaged: {error}") from error


def _check_process(row: Any) -> None:
    if not isinstance(row, dict):
        raise ValueError("it is not a process's record")
    for name in NUMERIC_PROCESS_COLUMNS:
        if not isinstance(row.get(name), int | float | None):
            raise ValueError(f"{name} is no number")


def _read_samples(folder: Path, trials: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    frames = []
    for trial in trials:
        path = folder / "samples" / f"{trial}.csv"
        if path.is_file():
            try:
                frame = pd.read_csv(path)
            except ValueError as error:  # pandas' parser errors and undecodable bytes
                raise HarnessError(f"'{path}' is damaged: {one_line(error)}") from error
            if list(frame.columns) != SAMPLE_COLUMNS[1:]:
                raise HarnessError(f"'{path}' is damaged: its columns are not {', '.join(SAMPLE_COLUMNS[1:])}")
            _check_numbers(frame, path)
            frame.insert(0, "trial", trial)
            frames.append(frame)
    if not frames:
        return pd.DataFrame(columns=SAMPLE_COLUMNS)
    return pd.concat(frames, ignore_index=True).astype({"disturbed": "Int64"})


def _check_numbers(samples: pd.DataFrame, path: Path) -> None:
    for name, dtype in samples.dtypes.items():
        is_whole = name not in ("boundary", "start_s", "elapsed_s", "disturbed")
        if name != "boundary" and dtype.kind not in ("i" if is_whole else "if"):
            raise HarnessError(f"'{path}' is damaged: not every {name} is a {'whole ' if is_whole else ''}number")
    if samples[["start_s", "elapsed_s"]].isna().any(axis=None):
        raise HarnessError(f"'{path}' is damaged: a time is missing")
    if not samples["disturbed"].isin([0, 1, math.nan]).all():
        raise HarnessError(f"'{path}' is damaged: disturbed is 0, 1 or empty")


def _numbers(rows: list[dict[str, Any]], columns: list[str], numeric: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numeric, "float64"))


def _json_safe(value: Any) -> Any:
    """JSON has no infinity: what is not finite is stored as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_safe(item) for item in value]
    return value
