"""The store: a run's folder, and the tables derived from it.

A folder holds `run.json` (environment, suite, plugins, plan), `journal.jsonl` (one record a finished trial, training or
process), `samples/` (raw samples, one CSV a process that timed), `weights/` (trained weights and their test
predictions), `cache/` (what runtimes keep for the run, such as exported graphs), `logs/` (what workers printed), and
what is derived and can be made again at any time: `tables/` and `report.md`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pandas as pd

from harness.columns import typed, with_sizes
from harness.contract import HarnessError, one_line
from harness.journal import Contents, Journal, StoreError, read_journal, read_json, sync_folder, write_atomically
from harness.samples import read_samples, samples_file, samples_text
from harness.schema import (
    AUDIT_COLUMNS,
    COST_COLUMNS,
    CURVE_COLUMNS,
    FLOAT_COLUMNS,
    GRADIENT_COLUMNS,
    INSTANCE_COLUMNS,
    LARGEST_WHOLE,
    LOAD_COLUMNS,
    MACHINE_COLUMNS,
    MATRIX_COLUMNS,
    NUMERIC_PROCESS_COLUMNS,
    PARITY_COLUMNS,
    PROCESS_COLUMNS,
    READABLE_VERSIONS,
    RUN_FILE,
    SCHEMA_VERSION,
    SCORE_COLUMNS,
    STATUSES,
    TABLES,
    TRIAL_COLUMNS,
    WHOLE_COLUMNS,
)

JOURNAL = "journal.jsonl"
FOLDERS = ("samples", "weights", "logs", "cache")
MAX_RUN_FILE_BYTES = 256 * 1024 * 1024
ROOM_BYTES = 4 * 2**20  # more than the weights of a training that only just failed


class RunFolder:
    """A run's folder, open for writing; while it is, no other process can open it."""

    def __init__(self, path: Path, header: Mapping[str, Any]) -> None:
        """Create the folder and write `run.json`.

        Raises:
            HarnessError: the folder exists and is not empty, another run has just made it, or it cannot be written.
        """
        self.path = path
        text = json.dumps({"schema_version": SCHEMA_VERSION, **header}, indent=2) + "\n"
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise HarnessError(f"'{path}' exists and is not empty; choose another --out or remove it")
            self._journal = Journal.create(path / JOURNAL)
            for name in FOLDERS:
                (path / name).mkdir()
            write_atomically(path / RUN_FILE, text)
            for parent in path.absolute().parents:  # some may be new
                sync_folder(parent)
        except OSError as error:
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}; choose another --out") from error
        self.append({"run": {"sha256": hashlib.sha256(text.encode()).hexdigest()}})

    @classmethod
    def reopen(cls, path: Path) -> tuple[Self, Run]:
        """Open a run to go on with it, and what it holds so far.

        Raises:
            HarnessError: it is not a run, an older harness began it, another process is writing it, or it cannot be
            read or written.
        """
        header = _read_header(path)
        if header[0]["schema_version"] != SCHEMA_VERSION:
            raise HarnessError(
                f"'{path}' was begun by a harness of schema version {header[0]['schema_version']}; it can be read, but "
                "not gone on with; start a new run"
            )
        if "suite" not in header[0]:
            raise HarnessError(f"'{path / RUN_FILE}' is damaged: it lacks suite, so it cannot be gone on with")
        folder = cls.__new__(cls)
        folder.path = path
        folder._journal, contents = Journal.reopen(path / JOURNAL)
        try:
            for name in FOLDERS:  # a copy of a run may lack what was empty
                (path / name).mkdir(exist_ok=True)
            return folder, _derive(path, header, contents)
        except OSError as error:
            folder.close()
            raise HarnessError(f"'{path}' cannot be written: {error.strerror}") from error
        except BaseException:
            folder.close()
            raise

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record to the journal; it is on the disk when this returns.

        Raises:
            StoreError: it cannot be written; what was there before is kept.
        """
        self._journal.append(record)

    def append_process(
        self,
        process: Mapping[str, Any],
        timed: Sequence[Mapping[str, Any]] = (),
        samples: Iterable[Sequence[Any]] = (),
    ) -> None:
        """Keep what a process timed: its samples in a file, and then its record.

        Args:
            process: its row of the processes table.
            timed: of each trial it timed: `trial`, and its rows of the instances, parity, gradients and audits tables.
            samples: rows of `SAMPLE_COLUMNS`; none make no file.

        Raises:
            StoreError: it cannot be written; what was there before is kept.
        """
        record: dict[str, Any] = {"process": dict(process), "timed": list(timed)}
        rows = list(samples)
        if rows:
            text = samples_text(rows)
            try:
                write_atomically(self.path / samples_file(process["process"]), text)
            except OSError as error:
                raise StoreError(f"'{self.path}' cannot be written: {error.strerror}") from error
            record["samples_sha256"] = hashlib.sha256(text.encode()).hexdigest()
        self.append(record)

    def check_room(self) -> None:
        """Find out whether the folder can still be written to.

        Raises:
            StoreError: it cannot, or has no room for a file of some MiB.
        """
        try:
            with tempfile.TemporaryFile(dir=self.path, buffering=0) as file:
                file.write(bytes(ROOM_BYTES))
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"'{self.path}' cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the journal and give up its lock."""
        self._journal.close()


@dataclass(frozen=True)
class Run:
    """A run as it was recorded: tidy tables of observations, one fact a row, units in the column names.

    Attributes:
        path: the run's folder.
        header: `run.json`: environment, suite, plugins, baselines.
        trials: one row per planned trial.
        parity: one row per trial, process, moment, case and part of the output.
        costs: what a session costs, a column each; one row per parity trial whose session could be opened and called.
        gradients: what training steps were asked; one row per trial, process and question.
        audits: what came of the audits of timed calls; one row per trial, process and audit.
        scores: one row per accuracy trial that has a score.
        curves: learning curves; one row per point.
        samples: one row per timed call.
        instances: one row per session that was timed: how it warmed up.
        processes: one row per worker process that timed or served: what happened on the machine meanwhile.
        matrices: the weight matrices of every variant that could be opened; one row per parity trial and matrix.
        machine: what the machine attains at best; one row per thing that was measured.
        trainings: the records of trainings that are no trial's own but serve other variants.
        resumptions: one record per time the run was resumed: when, and what had changed.
        damage: what of the folder cannot be read, one sentence each; everything else is there.
        missing: the planned trials that have no record, because the run ended before they did.
        loads: one row per load that was offered: latencies from the arrival, and whether it was sustained.
    """

    path: Path
    header: dict[str, Any]
    trials: pd.DataFrame
    parity: pd.DataFrame
    costs: pd.DataFrame
    gradients: pd.DataFrame
    audits: pd.DataFrame
    scores: pd.DataFrame
    curves: pd.DataFrame
    samples: pd.DataFrame
    instances: pd.DataFrame
    processes: pd.DataFrame
    matrices: pd.DataFrame
    machine: pd.DataFrame
    trainings: tuple[dict[str, Any], ...] = ()
    resumptions: tuple[dict[str, Any], ...] = ()
    damage: tuple[str, ...] = ()
    missing: frozenset[str] = frozenset()
    loads: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=LOAD_COLUMNS))

    @property
    def environment(self) -> dict[str, Any]:
        """The facts that could explain a number."""
        facts: dict[str, Any] = self.header["environment"]
        return facts

    @property
    def schema_version(self) -> int:
        """Of its tables: this harness's, whichever wrote the run."""
        return SCHEMA_VERSION

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """All tables but `samples`, by name, with one type a column in every run (see `harness.columns`)."""
        return {name: typed(name, getattr(self, name)) for name in TABLES}

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
    def capacity(self) -> pd.DataFrame:
        """One row per load trial: the highest load that is sustained (see `harness.capacity`)."""
        from harness.capacity import capacity

        return capacity(self)

    @cached_property
    def latency(self) -> pd.DataFrame:
        """One row per latency trial and boundary: estimates with intervals (see `harness.tables`)."""
        from harness.tables import latency

        return latency(self)


def load(path: str | Path) -> Run:
    """Read a run's folder. What is damaged is named in `Run.damage`, and the rest is read.

    Raises:
        HarnessError: it is not a run, `run.json` or the journal cannot be read, or another schema version wrote it.
    """
    folder = Path(path)
    return _derive(folder, _read_header(folder), read_journal(folder / JOURNAL))


def read_header(path: str | Path) -> dict[str, Any]:
    """A run's `run.json` alone.

    Raises:
        HarnessError: it is not a run, `run.json` cannot be read, or another schema version wrote it.
    """
    return _read_header(Path(path))[0]


def started(header: Mapping[str, Any]) -> datetime | None:
    """When a run began, in UTC, as its `run.json` says; None if it does not."""
    try:
        found = datetime.fromisoformat(header["environment"]["started_utc"])
    except (KeyError, TypeError, ValueError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _derive(folder: Path, described: tuple[dict[str, Any], str], contents: Contents) -> Run:
    header, digest = described
    records = _Records(folder, {row["trial"]: row for row in header["trials"]})
    for damage in contents.damage:
        records.note(str(damage))
    if contents.half_written:
        records.damage.append(
            f"the last record was cut off while it was written; its {contents.half_written} bytes are dropped"
        )
    for number, byte, record in contents.records:
        try:
            records.take(record)
        except (HarnessError, ValueError, TypeError, KeyError, OverflowError) as error:
            records.note(f"record {number}, byte {byte}: {one_line(error)}")
    if records.run_digest not in (None, digest):
        records.damage.append(f"'{folder / RUN_FILE}' is not what it was when the run began: its checksum differs")
    rows = records.rows
    trials = pd.DataFrame(records.trial_rows(), columns=TRIAL_COLUMNS)
    trials = trials.astype({"seed": "Int64", "batch": "Int64", "time": "Int64"})
    return Run(
        folder,
        header,
        with_sizes(trials, records.trial_rows()),
        _numbers(rows["parity"], PARITY_COLUMNS, FLOAT_COLUMNS["parity"]).fillna(
            {"rmse": math.inf, "max_abs_error": math.inf}  # JSON has no infinity
        ),
        _numbers(rows["costs"], COST_COLUMNS, FLOAT_COLUMNS["costs"]).astype(
            dict.fromkeys(WHOLE_COLUMNS["costs"], "Int64")
        ),
        _numbers(rows["gradients"], GRADIENT_COLUMNS, FLOAT_COLUMNS["gradients"]).fillna({"error": math.inf}),
        _numbers(rows["audits"], AUDIT_COLUMNS, FLOAT_COLUMNS["audits"]).fillna({"value": math.inf}),
        _numbers(rows["scores"], SCORE_COLUMNS, FLOAT_COLUMNS["scores"]).astype({"agreeing_rows": "Int64"}),
        _numbers(rows["curves"], CURVE_COLUMNS, FLOAT_COLUMNS["curves"]),
        read_samples(folder, records.samples, list(records.planned), records.damage),
        pd.DataFrame(rows["instances"], columns=INSTANCE_COLUMNS).astype({"rows": "Int64", "steps": "Int64"}),
        _numbers(records.processes, PROCESS_COLUMNS, NUMERIC_PROCESS_COLUMNS),
        pd.DataFrame(rows["matrices"], columns=MATRIX_COLUMNS),
        _numbers(records.machine, MACHINE_COLUMNS, ["flops_per_s", "bytes_per_s"]),
        tuple(records.trainings),
        tuple(records.resumptions),
        tuple(records.damage),
        frozenset(records.planned.keys() - records.ends.keys()),
        _loads(rows["loads"]),
    )


def _loads(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The loads table; who wrote none of its last columns judged all requests, confirmed nothing and noted no cap."""
    table = _numbers(rows, LOAD_COLUMNS, FLOAT_COLUMNS["loads"]).astype({"streams": "Int64"})
    flags = {name: table[name].eq(True) for name in ("is_confirmation", "is_capped")}
    return table.assign(judged=table["judged"].fillna(table["requests"]).astype("Int64"), **flags)


class _Records:
    """What the journal's records say, sorted into tables.

    A record that is not what the harness writes raises HarnessError or what Python says, and leaves nothing behind.
    """

    def __init__(self, folder: Path, planned: Mapping[str, Mapping[str, Any]]) -> None:
        self.folder = folder
        self.planned = planned
        self.ends: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FLOAT_COLUMNS}
        self.processes: list[dict[str, Any]] = []
        self.machine: list[dict[str, Any]] = []
        self.samples: dict[int, str] = {}  # checksums by process
        self.trainings: list[dict[str, Any]] = []
        self.resumptions: list[dict[str, Any]] = []
        self.run_digest: str | None = None
        self.damage: list[str] = []
        self._versions: dict[str, Any] = {}  # of distributions, since the run was last resumed
        self._lost = 0

    def note(self, damage: str) -> None:
        """A record that cannot be read."""
        self._lost += 1
        self.damage.append(f"'{self.folder / JOURNAL}', {damage}")

    def take(self, record: Mapping[str, Any]) -> None:
        """Sort one record in."""
        if "process" in record:
            self._take_process(record)
        elif "trial" in record:
            self._take_trial(record)
        elif "run" in record:
            self.run_digest = str(record["run"]["sha256"])
        elif "machine" in record:
            self.machine += [_machine_row(row) for row in record["machine"]]
        elif "training" in record:
            self.trainings.append(dict(record["training"]))
        elif "resumed" in record:
            self.resumptions.append(dict(record["resumed"]))
            self._versions = dict(record["resumed"]["versions"])
        else:
            raise HarnessError("it is no record of a trial, training, process, machine or resumption")

    def trial_rows(self) -> list[dict[str, Any]]:
        """Every planned trial with how it ended."""
        missing = {"status": "skipped", "reason": "the run ended before this trial", "log": None}
        if self._lost:
            missing["reason"] = f"it has no record, and {self._lost} of the journal's cannot be read"
        return [{**row, **self.ends.get(trial, missing)} for trial, row in self.planned.items()]

    def _take_trial(self, record: Mapping[str, Any]) -> None:
        trial, status = self._planned(record["trial"]), record["status"]
        if status not in STATUSES:
            raise HarnessError(f"trial '{trial}' has no status the harness knows")
        if trial in self.ends:
            raise HarnessError(f"trial '{trial}' was recorded before")
        rows = _rows(trial, record)
        end = {"status": status, "reason": str(record.get("reason", "")), "log": record.get("log")}
        for column in ("distribution", "runtime_distribution", "task_distribution"):
            if (name := self.planned[trial].get(column)) in self._versions:
                end[f"{column}_version"] = self._versions[name]
        self.ends[trial] = end
        self._keep(rows)

    def _take_process(self, record: Mapping[str, Any]) -> None:
        process = dict(record["process"])
        _check_numbers(process, NUMERIC_PROCESS_COLUMNS, ["slice", "process"])
        timed = [_rows(self._planned(own["trial"]), own) for own in record.get("timed", [])]
        if "samples_sha256" in record:
            self.samples[int(process["process"])] = str(record["samples_sha256"])
        self.processes.append(process)
        for rows in timed:
            self._keep(rows)

    def _keep(self, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        for name, table in rows.items():
            self.rows[name] += table

    def _planned(self, trial: Any) -> str:
        if trial not in self.planned:
            raise HarnessError(f"trial '{trial}' was never planned")
        return str(trial)


def _rows(trial: str, record: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What a record says of a trial, by table."""
    rows = {name: [{**row, "trial": trial} for row in record.get(name, [])] for name in FLOAT_COLUMNS}
    for name, table in rows.items():
        for row in table:
            _check_numbers(row, FLOAT_COLUMNS[name], WHOLE_COLUMNS.get(name, []))
            if name == "loads" and not all((row.get(count) or 0) > 0 for count in ("slice", "probe", "requests")):
                raise HarnessError("a load has no slice, probe or requests")
            if name == "loads" and not (row.get("rate_per_s") or row.get("streams") or 0) > 0:
                raise HarnessError("a load is not above 0")
    return rows


def _machine_row(given: Any) -> dict[str, Any]:
    row = dict(given)
    _check_numbers(row, ["flops_per_s", "bytes_per_s"], ["threads", "working_set_bytes"])
    for name in ("device", "dtype", "what"):
        if not isinstance(row[name], str):
            raise HarnessError(f"its {name} is no text")
    return {name: row[name] for name in MACHINE_COLUMNS}


def _check_numbers(row: Mapping[str, Any], floats: Sequence[str], wholes: Sequence[str]) -> None:
    for name in floats:
        if not isinstance(value := row.get(name), int | float | None) or not math.isfinite(value or 0):
            raise HarnessError(f"its {name} is no number")
    for name in wholes:
        if not isinstance(value := row.get(name), int | None) or abs(value or 0) > LARGEST_WHOLE:
            raise HarnessError(f"its {name} is no whole number")


def _read_header(folder: Path) -> tuple[dict[str, Any], str]:
    """`run.json` and its checksum."""
    try:
        with (folder / RUN_FILE).open("rb") as file:
            text = file.read(MAX_RUN_FILE_BYTES + 1)
        if len(text) > MAX_RUN_FILE_BYTES:
            raise ValueError(f"it has more than {MAX_RUN_FILE_BYTES} bytes")
        header: dict[str, Any] = read_json(text)
    except OSError as error:
        raise HarnessError(f"'{folder}' is not a run: {RUN_FILE} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: {error}") from error
    if not isinstance(header, dict) or "schema_version" not in header:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: it is not a run's header")
    if header["schema_version"] not in READABLE_VERSIONS:
        raise HarnessError(
            f"'{folder}' has schema version {header['schema_version']}; this harness reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}"
        )
    if missing := [
        key for key in ("name", "baselines", "floors", "plugins", "environment", "trials") if key not in header
    ]:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: it lacks {', '.join(missing)}")
    try:
        for row in header["trials"]:
            if not isinstance(row["trial"], str):
                raise HarnessError("one has no name")
            _check_numbers(row, [], ["seed", "batch", "time"])
        if not all(isinstance(plugin["name"], str) for plugin in header["plugins"]):
            raise HarnessError("a plugin has no name")
    except (HarnessError, TypeError, KeyError, AttributeError) as error:
        raise HarnessError(f"'{folder / RUN_FILE}' is damaged: its trials or plugins: {one_line(error)}") from error
    return header, hashlib.sha256(text).hexdigest()


def _numbers(rows: list[dict[str, Any]], columns: list[str], numeric: list[str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(numeric, "float64"))
