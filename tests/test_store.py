"""The store: what is written comes back, damage is named, and nothing is written where it must not be."""

from __future__ import annotations

import hashlib
import json
import math
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import HarnessError
from harness.journal import StoreError, write_atomically
from harness.limits import LIMIT_COLUMNS
from harness.samples import SAMPLE_COLUMNS
from harness.schema import (
    AUDIT_COLUMNS,
    CURVE_COLUMNS,
    GOOD_STATUSES,
    GRADIENT_COLUMNS,
    INSTANCE_COLUMNS,
    MACHINE_COLUMNS,
    MATRIX_COLUMNS,
    NUMERIC_PROCESS_COLUMNS,
    PARITY_COLUMNS,
    PROCESS_COLUMNS,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    SCORE_COLUMNS,
    STATUSES,
    TRIAL_COLUMNS,
)
from harness.store import FOLDERS, RunFolder, load
from harness.tables import CALIBRATION_COLUMNS, LATENCY_COLUMNS, SCENARIOS

HEADER: dict[str, Any] = {
    "name": "hand-made",
    "suite": {},
    "baselines": {"lstm": "a@r"},
    "floors": [],
    "plugins": [],
    "environment": {"os": "none", "versions": {}},
    "trials": [
        {
            **dict.fromkeys(TRIAL_COLUMNS[:-3]),
            "trial": name,
            "kind": kind,
            "variant": "a@r",
            "architecture": "lstm",
            "task": "t",
            "device": "cpu",
            "dtype": "float32",
            "threads": 1,
            "batch": 1,
            "twin": 0,
        }
        for name, kind in (("0001-parity", "parity"), ("0002-accuracy", "accuracy"), ("0003-latency", "latency"))
    ],
}
UNITS = ("_s", "_per_s", "_share", "_mhz", "_c", "_w")
DIMENSIONLESS = {"ratio", "ratio_low", "ratio_high", "half_width", "autocorrelation"}
DIMENSIONLESS |= {"steps"} | {"attainable", "attainable_low", "attainable_high"}
PROCESS: dict[str, Any] = dict.fromkeys(NUMERIC_PROCESS_COLUMNS, 0.1 + 0.2)
PROCESS |= {
    "slice": 2,
    "process": 7,
    "task": "t",
    "runtime": "r",
    "python": "",
    "trial": "0003-latency",
    "governor": "performance",
    "cpus": "0-1",
    "clock": "host",
    "clock_reason": None,
    "device_name": None,
    "device_throttling": None,
}
PROCESS |= {"started_s": 1.7e9 + 1 / 3, "canary_s": 1e-9 / 3, "involuntary_switches": 12345}
MACHINE: dict[str, Any] = {"device": "cpu", "dtype": "float32", "threads": 1, "what": "read"}
MACHINE |= {"working_set_bytes": 2**14, "flops_per_s": None, "bytes_per_s": 1e11 / 3}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**53)
SAMPLE = st.tuples(
    *(COUNT,) * 3, st.sampled_from(["compute", "end-to-end"]), *(COUNT,) * 3, FINITE, FINITE, st.sampled_from([0, 1])
)


CELL = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)
ANYTHING = CELL | st.lists(CELL, max_size=2) | st.dictionaries(st.sampled_from(["trial", "score"]), CELL)
TABLES = {"parity": PARITY_COLUMNS, "scores": SCORE_COLUMNS, "curves": CURVE_COLUMNS, "instances": INSTANCE_COLUMNS}
TABLES |= {"matrices": MATRIX_COLUMNS}
OBSERVED: dict[str, Any] = {
    name: ANYTHING | st.lists(st.dictionaries(st.sampled_from(columns), ANYTHING), max_size=2)
    for name, columns in TABLES.items()
}
NONSENSE = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["run", "training", "resumed", "reason", "log"], ANYTHING),
        "machine": ANYTHING | st.lists(st.fixed_dictionaries(dict.fromkeys(MACHINE_COLUMNS, CELL)), max_size=2),
        **OBSERVED,
        "samples_sha256": CELL,
        "trial": CELL | st.just("0002-accuracy"),
        "status": CELL | st.sampled_from(sorted(STATUSES)),
        "process": ANYTHING | st.dictionaries(st.sampled_from(PROCESS_COLUMNS), CELL, max_size=3),
        "timed": ANYTHING | st.lists(st.fixed_dictionaries({"trial": st.just("0002-accuracy")}, optional=OBSERVED)),
    },
)
WRITE_SLOWLY = """
import os, sys
from pathlib import Path
from harness.journal import write_atomically
sync = os.fsync
def wait(descriptor):
    os.fsync = sync
    print("almost", flush=True)
    sys.stdin.readline()
os.fsync = wait
write_atomically(Path(sys.argv[1]), "theirs" * 1000)
"""


def sample(trial: str = "0003-latency", **changes: Any) -> list[Any]:
    """A row of a samples file."""
    row = dict(zip(SAMPLE_COLUMNS, [trial, 1, 1, 1, "compute", 0, 0, 1, 0.0, 0.5, 0], strict=True))
    return list((row | changes).values())


def finished(folder: RunFolder, trial: str = "0001-parity", **changes: Any) -> None:
    folder.append({"trial": trial, "status": "ok", "reason": "", **changes})


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run", HEADER)


def test_a_new_run_has_every_planned_trial_and_no_observation(folder: RunFolder) -> None:
    folder.close()
    run = harness.load(folder.path)
    assert run.trials["trial"].tolist() == ["0001-parity", "0002-accuracy", "0003-latency"]
    assert set(run.trials["status"]) == {"skipped"}
    assert set(run.trials["reason"]) == {"the run ended before this trial"}
    tables = (run.parity, run.gradients, run.scores, run.curves, run.samples, run.instances, run.processes)
    for table in (*tables, run.matrices, run.machine):
        assert table.empty
    assert run.environment == {"os": "none", "versions": {}}


@given(
    reason=st.text(),
    values=st.lists(st.floats(), min_size=4, max_size=4),
    status=st.sampled_from(sorted(STATUSES)),
)
def test_any_reason_and_any_number_comes_back_and_what_is_not_finite_as_infinite_or_unknown(
    tmp_path_factory: pytest.TempPathFactory, reason: str, values: list[float], status: str
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("store") / "run", HEADER)
    numbers = dict(zip(("rmse", "yardstick_rmse", "reference_rms", "max_abs_error"), values, strict=True))
    finished(folder, status=status, reason=reason, parity=[{"process": 0, "case": reason, "part": "y", **numbers}])
    folder.close()
    run = load(folder.path)
    trial = run.trials.iloc[0]
    assert (trial["status"], trial["reason"]) == (status, reason)
    (row,) = run.parity.to_dict("records")
    assert row["case"] == reason
    for name, value in numbers.items():
        if math.isfinite(value):
            assert row[name] == value
        else:  # JSON has no infinity; an error that was not finite is as large as can be
            assert row[name] == math.inf if name in ("rmse", "max_abs_error") else math.isnan(row[name])


def test_scores_curves_and_gradient_checks_come_back_as_they_were(folder: RunFolder) -> None:
    score = {"metric": "accuracy", "score": 0.1 + 0.2, "rows": 10, "trainer_score": None, "agreeing_rows": None}
    point = {"step": 3, "epoch": 1 / 3, "training_loss": math.inf, "score": math.nan}
    check = {"process": 1, "what": "loss", "error": math.inf, "allowed": 1e-3, "expected": 0.7}
    finished(folder, "0003-latency", gradients=[check])
    finished(folder, "0002-accuracy", scores=[score], curves=[point, {**point, "training_loss": 1e-300}])
    folder.close()
    run = load(folder.path)
    assert run.scores["score"].tolist() == [0.1 + 0.2]
    assert run.scores["trainer_score"].isna().all()
    assert run.scores["agreeing_rows"].isna().all()
    assert run.curves["epoch"].tolist() == [1 / 3, 1 / 3]
    assert run.curves["training_loss"].tolist()[1] == 1e-300
    assert run.curves["training_loss"].isna().tolist() == [True, False]
    assert set(run.curves["trial"]) == {"0002-accuracy"}
    (row,) = run.gradients.to_dict("records")
    assert (row["trial"], row["what"], row["allowed"], row["expected"]) == ("0003-latency", "loss", 1e-3, 0.7)
    assert row["error"] == math.inf


def test_raw_samples_come_back_to_the_last_digit(folder: RunFolder) -> None:
    rows = [
        ["0003-latency", 1, 7, 1, "compute", 0, 0, 0, 0.1 + 0.2, 1e-9 / 3, 0],
        ["0003-latency", 2, 7, 4, "end-to-end", 1, 3, 4, 12345.678901234, 5e-324, 1],
    ]
    folder.append_process(PROCESS, samples=rows)
    folder.close()
    samples = load(folder.path).samples
    assert samples.columns.tolist() == SAMPLE_COLUMNS
    assert samples.to_numpy().tolist() == rows


@given(rows=st.lists(SAMPLE, min_size=1, max_size=20))
def test_any_samples_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("store") / "run", HEADER)
    folder.append_process(PROCESS, samples=[["0003-latency", *row] for row in rows])
    folder.close()
    assert load(folder.path).samples.to_numpy().tolist() == [["0003-latency", *row] for row in rows]


def test_samples_stand_in_the_order_of_the_trials_and_then_as_they_were_taken(folder: RunFolder) -> None:
    calls = [(8, "0003-latency", 1), (8, "0002-accuracy", 2), (7, "0003-latency", 3), (7, "0002-accuracy", 4)]
    for process in (8, 7):
        rows = [sample(trial, process=process, call=call) for p, trial, call in calls if p == process]
        folder.append_process(PROCESS | {"process": process}, samples=rows)
    folder.close()
    assert load(folder.path).samples["call"].tolist() == [2, 4, 1, 3]


@pytest.mark.parametrize(("others", "second"), [([0, 1], [1, 0]), ([0, 1], ["", ""]), (["", ""], ["", 1])])
def test_what_cannot_be_told_of_a_disturbance_stays_unknown(
    folder: RunFolder, others: list[Any], second: list[Any]
) -> None:
    """One process may know what another does not; pandas must not guess from the columns of either."""
    for process, marks in ((1, others), (2, second)):
        rows = [sample(process=process, call=call, disturbed=mark) for call, mark in enumerate(marks)]
        folder.append_process(PROCESS | {"process": process}, samples=rows)
    folder.close()
    found = load(folder.path).samples["disturbed"]
    assert found.dtype == "Int64"
    assert [None if pd.isna(mark) else mark for mark in found] == [m if m != "" else None for m in (*others, *second)]


def test_what_a_process_found_of_each_trial_comes_back_beside_the_trial(folder: RunFolder) -> None:
    warm_up = {"slice": 2, "process": 7, "instance": 3, "warmup_calls": 12, "is_steady": True, "rows": 4, "steps": 20}
    check = {"process": 7, "moment": "after", "case": "c", "part": "y", "rmse": 1e-7, "yardstick_rmse": 2e-7}
    check |= {"reference_rms": 0.5, "max_abs_error": 3e-7, "yardstick": "equations", "problem": ""}
    asked = {"process": 7, "what": "loss", "error": 0.25, "allowed": 1e-3, "expected": 0.7}
    timed = [
        {"trial": "0003-latency", "instances": [warm_up], "parity": [check], "gradients": []},
        {"trial": "0002-accuracy", "instances": [], "gradients": [asked]},
    ]
    folder.append_process(PROCESS, timed)
    folder.close()
    run = load(folder.path)
    assert run.instances.columns.tolist() == INSTANCE_COLUMNS
    assert run.instances.to_dict("records") == [{"trial": "0003-latency", **warm_up}]
    assert run.parity.to_dict("records") == [{"trial": "0003-latency", **check}]
    assert run.gradients.to_dict("records") == [{"trial": "0002-accuracy", **asked}]
    assert run.samples.empty
    assert run.missing == {"0001-parity", "0002-accuracy", "0003-latency"}
    assert run.damage == ()


def test_what_a_trial_found_when_it_failed_stands_beside_what_its_processes_found(folder: RunFolder) -> None:
    rows = [{"process": process, "what": "loss", "error": 0.5, "allowed": 1e-3, "expected": 0.7} for process in (1, 2)]
    folder.append_process(PROCESS, [{"trial": "0003-latency", "gradients": rows[:1]}])
    finished(folder, "0003-latency", status="wrong", gradients=rows[1:])
    folder.close()
    assert load(folder.path).gradients["process"].tolist() == [1, 2]


def test_processes_come_back_from_between_the_trials_in_the_order_they_ended(folder: RunFolder) -> None:
    folder.append_process(PROCESS)
    finished(folder)
    folder.append_process(PROCESS | {"process": 8, "runtime": "other"})
    folder.append_process(PROCESS | {"process": 9, "python": "new"})
    finished(folder, "0003-latency")
    folder.close()
    run = load(folder.path)
    assert run.trials["status"].tolist() == ["ok", "skipped", "ok"]
    assert run.processes.columns.tolist() == PROCESS_COLUMNS
    first, second, third = run.processes.to_dict("records")
    assert first == PROCESS
    assert (second["process"], second["runtime"], third["process"], third["python"]) == (8, "other", 9, "new")


@given(values=st.lists(st.none() | st.floats() | st.integers(-(2**53), 2**53), min_size=4, max_size=4))
def test_what_a_machine_does_not_tell_of_a_process_is_unknown(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("store") / "run", HEADER)
    told = dict(zip(("steal_share", "frequency_mhz", "temperature_c", "voluntary_switches"), values, strict=True))
    folder.append_process(PROCESS | told | {"governor": None})
    folder.append({"process": {}})
    folder.close()
    row, nothing = load(folder.path).processes.to_dict("records")
    for name, value in told.items():
        assert row[name] == value if value is not None and math.isfinite(value) else math.isnan(row[name])
    assert row["canary_s"] == PROCESS["canary_s"]
    assert pd.isna(row["governor"])
    assert all(pd.isna(value) for value in nothing.values())


def test_what_is_measured_after_a_resumption_names_the_versions_of_then(tmp_path: Path) -> None:
    owners = {"distribution": "rnn-own", "runtime_distribution": "rnn-other", "task_distribution": "rnn-own"}
    versions = {f"{name}_version": "1.0" for name in owners}
    first, second = ({**trial, **owners, **versions} for trial in HEADER["trials"][:2])
    folder = RunFolder(tmp_path / "run", HEADER | {"trials": [first, second]})
    folder.append({"trial": first["trial"], "status": "ok"})
    resumed = {"started_utc": "", "command": [], "versions": {"rnn-own": "1.1", "rnn-third": "3.0"}, "changed": []}
    folder.append({"resumed": resumed})
    folder.append({"trial": second["trial"], "status": "ok"})
    folder.close()
    run = load(folder.path)
    assert run.damage == ()
    assert run.trials[list(versions)].to_numpy().tolist() == [["1.0", "1.0", "1.0"], ["1.1", "1.0", "1.1"]]


def test_what_the_machine_attains_and_the_shapes_of_weights_come_back(folder: RunFolder) -> None:
    product = MACHINE | {"what": "flops", "working_set_bytes": 3 * 2**20, "flops_per_s": 2e11 / 3, "bytes_per_s": None}
    shapes = [{"matrix": "weight_ih_l0", "rows": 24, "columns": 3}, {"matrix": "own", "rows": 2**40, "columns": 1}]
    folder.append({"machine": [product, MACHINE]})
    finished(folder, matrices=shapes)
    folder.close()
    run = load(folder.path)
    assert run.damage == ()
    assert run.machine["flops_per_s"].tolist()[:1] == [2e11 / 3]
    assert run.machine["bytes_per_s"].tolist()[1:] == [1e11 / 3]
    assert run.machine.isna().sum().sum() == 2
    assert run.machine["working_set_bytes"].tolist() == [3 * 2**20, 2**14]
    assert run.matrices.to_dict("records") == [{"trial": "0001-parity", **row} for row in shapes]


def test_a_run_that_measured_no_machine_has_an_empty_table_and_no_bound(folder: RunFolder) -> None:
    make_latencies(folder)
    folder.close()
    run = load(folder.path)
    assert run.machine.empty
    assert run.latency[list(LIMIT_COLUMNS)].isna().all(axis=None)
    assert len(run.latency) == 1


def test_trainings_and_resumptions_come_back(folder: RunFolder) -> None:
    training = {"variant": "a@r", "task": "t", "seed": 0, "status": "ok", "reason": "", "score": 0.1 + 0.2}
    resumed = {
        "started_utc": "2030-01-01T00:00:00",
        "command": ["harness", "run"],
        "versions": {"rnn-own": "1.1"},
        "changed": ["suite seeds: 3, now 4"],
    }
    folder.append({"training": training})
    folder.append({"resumed": resumed})
    folder.append({"training": training | {"seed": 1}})
    folder.close()
    run = load(folder.path)
    assert run.trainings == (training, training | {"seed": 1})
    assert run.resumptions == (resumed,)
    assert run.damage == ()


def test_a_trial_that_was_written_is_on_the_disk_before_the_folder_is_closed(folder: RunFolder) -> None:
    finished(folder, log="logs/0007.log")
    run = load(folder.path)
    assert run.trials["status"].tolist() == ["ok", "skipped", "skipped"]
    assert run.trials["log"][0] == "logs/0007.log"
    assert run.trials["log"][1:].isna().all()
    assert run.missing == {"0002-accuracy", "0003-latency"}
    folder.close()


# -------------------------------------------------------------------------------------------------------- damage


def observed(folder: RunFolder) -> None:
    """Six records: of `run.json`, the first trial, a process with a sample, the second trial, one more, the last."""
    finished(folder)
    folder.append_process(PROCESS | {"process": 1}, samples=[sample(process=1)])
    finished(folder, "0002-accuracy")
    folder.append_process(PROCESS | {"process": 2}, samples=[sample(process=2)])
    finished(folder, "0003-latency")
    folder.close()


def test_a_last_record_that_was_cut_off_anywhere_is_dropped_with_a_word(folder: RunFolder) -> None:
    observed(folder)
    journal = folder.path / "journal.jsonl"
    whole = journal.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for length in range(last, len(whole) - 1):
        journal.write_bytes(whole[:length])
        run = load(folder.path)
        assert run.trials["status"].tolist() == ["ok", "ok", "skipped"]
        assert run.trials["reason"].tolist() == ["", "", "the run ended before this trial"]
        half = length - last
        word = f"the last record was cut off while it was written; its {half} bytes are dropped"
        assert run.damage == ((word,) if half else ())


@pytest.mark.parametrize("number", range(1, 7))
def test_a_record_that_changed_is_named_and_all_others_stand(folder: RunFolder, number: int) -> None:
    observed(folder)
    journal = folder.path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    byte = sum(map(len, lines[: number - 1]))
    lines[number - 1] = lines[number - 1].replace(b'"record":{', b'"record": {')
    journal.write_bytes(b"".join(lines))
    run = load(folder.path)
    assert run.damage == (f"'{journal}', record {number}, byte {byte}: it is not a record",)
    assert set(run.missing) == {2: {"0001-parity"}, 4: {"0002-accuracy"}, 6: {"0003-latency"}}.get(number, set())
    assert run.processes["process"].tolist() == {3: [2], 5: [1]}.get(number, [1, 2])
    assert run.samples["process"].tolist() == {3: [2], 5: [1]}.get(number, [1, 2])
    reasons = run.trials["reason"][run.trials["trial"].isin(run.missing)]
    assert reasons.tolist() == ["it has no record, and 1 of the journal's cannot be read"] * len(run.missing)


@given(record=NONSENSE)
def test_no_record_keeps_a_run_from_being_read(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any]
) -> None:
    """Its checksum may be right and what it says nonsense; what was said before and after stands."""
    folder = RunFolder(tmp_path_factory.mktemp("store") / "run", HEADER)
    finished(folder)
    folder.append(record)
    finished(folder, "0003-latency")
    folder.close()
    run = load(folder.path)
    assert run.trials["status"].tolist()[::2] == ["ok", "ok"]
    assert run.latency.empty


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({}, "it is no record of a trial, training, process, machine or resumption"),
        ({"machine": 3}, "TypeError: "),
        ({"machine": [MACHINE | {"bytes_per_s": "fast"}]}, "its bytes_per_s is no number"),
        ({"machine": [MACHINE, MACHINE | {"working_set_bytes": 0.5}]}, "its working_set_bytes is no whole number"),
        ({"machine": [MACHINE | {"dtype": ["float32"]}]}, "its dtype is no text"),
        ({"machine": [{"device": "cpu"}]}, "KeyError: "),
        ({"trial": "0099-parity", "status": "ok"}, "trial '0099-parity' was never planned"),
        ({"trial": ["0002-accuracy"], "status": "ok"}, "TypeError: "),
        ({"trial": "0001-parity", "status": "failed"}, "trial '0001-parity' was recorded before"),
        ({"trial": "0002-accuracy"}, "KeyError: 'status'"),
        ({"trial": "0002-accuracy", "status": "fine"}, "trial '0002-accuracy' has no status the harness knows"),
        ({"trial": "0002-accuracy", "status": "ok", "scores": 3}, "TypeError: "),
        ({"trial": "0002-accuracy", "status": "ok", "scores": [{"score": "good"}]}, "its score is no number"),
        ({"trial": "0002-accuracy", "status": "ok", "scores": [{"agreeing_rows": 0.5}]}, "is no whole number"),
        ({"trial": "0002-accuracy", "status": "ok", "parity": [{"rmse": 10**400}]}, "OverflowError: "),
        ({"process": None}, "TypeError: "),
        ({"process": None, "trial": "0002-accuracy", "status": "ok"}, "TypeError: "),
        ({"process": {"canary_s": "fast"}}, "its canary_s is no number"),
        ({"process": {"slice": {}}}, "its slice is no number"),
        ({"process": {"process": 0.5}}, "its process is no whole number"),
        ({"process": PROCESS, "timed": [{"trial": "0099-latency"}]}, "trial '0099-latency' was never planned"),
        ({"process": PROCESS, "timed": [{"trial": "0002-accuracy", "instances": [{"slice": "x"}]}]}, "its slice is no"),
        ({"process": {}, "samples_sha256": ""}, "KeyError: 'process'"),
        ({"run": None}, "TypeError: "),
        ({"training": 3}, "TypeError: "),
        ({"resumed": [1]}, "TypeError: "),
    ],
)
def test_a_record_that_makes_no_sense_is_named_and_leaves_nothing(
    folder: RunFolder, record: dict[str, Any], why: str
) -> None:
    finished(folder)
    folder.append(record)
    finished(folder, "0003-latency")
    folder.close()
    byte = sum(map(len, (folder.path / "journal.jsonl").read_bytes().splitlines(keepends=True)[:2]))
    run = load(folder.path)
    (damage,) = run.damage
    assert damage.startswith(f"'{folder.path / 'journal.jsonl'}', record 3, byte {byte}: ")
    assert why in damage
    assert run.missing == {"0002-accuracy"}
    assert run.trials["reason"].tolist() == ["", "it has no record, and 1 of the journal's cannot be read", ""]
    tables = (run.parity, run.gradients, run.scores, run.curves, run.samples, run.instances, run.processes)
    for table in (*tables, run.matrices, run.machine):
        assert table.empty


@pytest.mark.parametrize("number", [1, 2])
def test_a_samples_file_that_changed_or_is_gone_is_named_and_the_others_are_read(
    folder: RunFolder, number: int
) -> None:
    observed(folder)
    path = folder.path / "samples" / f"{number:04d}.csv"
    other = 3 - number
    path.write_bytes(path.read_bytes().replace(b"0.5", b"0.6"))
    run = load(folder.path)
    assert run.damage == (f"'{path}' is damaged: its checksum differs; its samples are left out",)
    assert run.samples["process"].tolist() == [other]
    path.unlink()
    run = load(folder.path)
    assert run.damage == (f"'{path}' cannot be read (No such file or directory); its samples are missing",)
    assert run.samples["process"].tolist() == [other]
    assert run.missing == frozenset()


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("elapsed_s", "fast", "ValueError: "),
        ("elapsed_s", "", "a time is missing"),
        ("start_s", "", "a time is missing"),
        ("process", "first", "ValueError: "),
        ("slice", 0.5, "ValueError: "),
        ("call", "", "ValueError: "),
        ("call", 10**30, "OverflowError: "),
        ("disturbed", "yes", "ValueError: "),
        ("disturbed", 2, "disturbed is not 0, 1 or empty"),
        ("disturbed", 0.5, "TypeError: "),
    ],
)
def test_a_sample_that_is_no_number_is_named(folder: RunFolder, name: str, value: Any, why: str) -> None:
    """Whoever wrote it knew its checksum, and yet it is none."""
    folder.append_process(PROCESS | {"process": 1}, samples=[sample(**{name: value})])
    folder.append_process(PROCESS | {"process": 2}, samples=[sample(process=2)])
    folder.close()
    run = load(folder.path)
    (damage,) = run.damage
    assert damage.startswith(f"'{folder.path / 'samples' / '0001.csv'}' is damaged: ")
    assert why in damage
    assert run.samples["process"].tolist() == [2]


@pytest.mark.parametrize("text", [b"", b"\x00\xff\xfe", b"process,boundary\n1,compute\n", b'process\n"1'])
def test_a_file_that_is_no_table_of_samples_is_named(folder: RunFolder, text: bytes) -> None:
    (folder.path / "samples" / "0007.csv").write_bytes(text)
    folder.append({"process": PROCESS, "samples_sha256": hashlib.sha256(text).hexdigest()})
    folder.close()
    run = load(folder.path)
    (damage,) = run.damage
    assert re.search(r"0007\.csv' is damaged: .+; its samples are left out$", damage)
    assert run.samples.empty
    assert run.samples.columns.tolist() == SAMPLE_COLUMNS


def test_samples_of_a_trial_that_was_never_planned_are_left_out(folder: RunFolder) -> None:
    folder.append_process(PROCESS, samples=[sample("0099-latency"), sample()])
    folder.close()
    assert load(folder.path).samples["trial"].tolist() == ["0003-latency"]


def test_a_run_file_that_changed_is_named(folder: RunFolder) -> None:
    finished(folder)
    folder.close()
    path = folder.path / "run.json"
    path.write_text(path.read_text(encoding="utf-8").replace("hand-made", "improved"), encoding="utf-8")
    run = load(folder.path)
    assert run.header["name"] == "improved"
    assert run.damage == (f"'{path}' is not what it was when the run began: its checksum differs",)
    assert run.trials["status"].tolist() == ["ok", "skipped", "skipped"]


@pytest.mark.parametrize("value", [0x0A, 0x2E, None])
def test_no_byte_of_the_run_file_changes_unnoticed(tmp_path: Path, value: int | None) -> None:
    RunFolder(tmp_path / "run", HEADER | {"trials": HEADER["trials"][:1]}).close()
    path = tmp_path / "run" / "run.json"
    whole = path.read_bytes()
    for place, byte in enumerate(whole):
        changed = byte ^ 1 if value is None else value
        if changed != byte:
            path.write_bytes(whole[:place] + bytes([changed]) + whole[place + 1 :])
            try:
                damage = load(tmp_path / "run").damage
            except HarnessError as error:
                damage = (str(error),)
            assert any("run.json" in one or "schema version" in one for one in damage), place


def test_an_older_run_is_read_and_not_gone_on_with(folder: RunFolder) -> None:
    folder.close()
    path = folder.path / "run.json"
    path.write_text(
        path.read_text(encoding="utf-8").replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 5')
    )
    assert load(folder.path).header["schema_version"] == 5
    with pytest.raises(HarnessError, match="begun by a harness of schema version 5; it can be read, but not gone on"):
        RunFolder.reopen(folder.path)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, READABLE_VERSIONS[0] - 1, None, str(SCHEMA_VERSION)])
def test_a_run_of_another_schema_version_is_refused(folder: RunFolder, version: Any) -> None:
    folder.close()
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"schema_version": version}))
    with pytest.raises(HarnessError, match=f"has schema version {version}; this harness reads 5 and 6"):
        load(folder.path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff", b"[]", b"3", b"[" * 10**6, b'{"schema_version": %d}' % SCHEMA_VERSION]
)
def test_a_damaged_run_file_is_named(folder: RunFolder, text: bytes) -> None:
    folder.close()
    (folder.path / "run.json").write_bytes(text)
    with pytest.raises(HarnessError, match=r"run\.json' is damaged"):
        load(folder.path)


@pytest.mark.parametrize("key", [key for key in HEADER if key != "suite"])
def test_a_run_file_that_lacks_something_says_what(folder: RunFolder, key: str) -> None:
    folder.close()
    path = folder.path / "run.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    del header[key]
    path.write_text(json.dumps(header), encoding="utf-8")
    with pytest.raises(HarnessError, match=rf"run\.json' is damaged: it lacks {key}$"):
        load(folder.path)


def test_a_run_that_says_no_suite_can_be_read_and_not_gone_on_with(folder: RunFolder) -> None:
    folder.close()
    path = folder.path / "run.json"
    header = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != "suite"}
    path.write_text(json.dumps(header), encoding="utf-8")
    assert len(load(folder.path).trials) == len(HEADER["trials"])
    with pytest.raises(HarnessError, match=r"run\.json' is damaged: it lacks suite, so it cannot be gone on with$"):
        RunFolder.reopen(folder.path)


@pytest.mark.parametrize("plugins", [3, ["own"], [{"version": "1"}], [{"name": 3}]])
def test_plugins_that_cannot_be_read_are_named(folder: RunFolder, plugins: Any) -> None:
    folder.close()
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"plugins": plugins}), encoding="utf-8")
    with pytest.raises(HarnessError, match=r"run\.json' is damaged: its trials or plugins: "):
        load(folder.path)


def test_a_folder_without_room_says_so(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.check_room()
    folder.close()

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.store.tempfile.TemporaryFile", full)
    with pytest.raises(StoreError, match="run' cannot be written: No space left on device"):
        folder.check_room()


@pytest.mark.parametrize(
    ("trials", "why"),
    [
        (3, "TypeError"),
        ({"a": 1}, "TypeError"),
        ([{}], "KeyError: 'trial'"),
        ([{"trial": ["0001-parity"]}], "one has no name"),
        ([{"trial": "0001-parity", "seed": 0.5}], "its seed is no whole number"),
        ([{"trial": "0001-parity", "time": 10**30}], "its time is no whole number"),
    ],
)
def test_a_plan_that_cannot_be_read_is_named(folder: RunFolder, trials: Any, why: str) -> None:
    folder.close()
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"trials": trials}), encoding="utf-8")
    with pytest.raises(HarnessError, match=rf"run\.json' is damaged: its trials or plugins: .*{why}"):
        load(folder.path)


def test_a_run_file_that_is_too_long_is_refused(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.close()
    monkeypatch.setattr("harness.store.MAX_RUN_FILE_BYTES", 100)
    with pytest.raises(HarnessError, match=r"run\.json' is damaged: it has more than 100 bytes"):
        load(folder.path)


@pytest.mark.parametrize("name", ["empty", "missing", "file"])
def test_what_is_not_a_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HarnessError, match=rf"{name}' is not a run: run\.json cannot be read"):
        load(tmp_path / name)


def test_a_run_without_its_journal_is_refused(folder: RunFolder) -> None:
    folder.close()
    (folder.path / "journal.jsonl").unlink()
    with pytest.raises(HarnessError, match=r"journal\.jsonl' cannot be read: No such file"):
        load(folder.path)


def test_a_folder_that_holds_something_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("mine", encoding="utf-8")
    with pytest.raises(HarnessError, match="run' exists and is not empty; choose another --out or remove it"):
        RunFolder(tmp_path / "run", HEADER)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["precious"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    RunFolder(tmp_path / "run", HEADER).close()
    assert len(load(tmp_path / "run").trials) == 3


@pytest.mark.parametrize("name", ["file", "file/below", "file/below/deeper"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(HarnessError, match=f"{name}' cannot be written: .*; choose another --out"):
        RunFolder(tmp_path / name, HEADER)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ------------------------------------------------------------------------------------------- opening and writing


def test_a_run_that_is_reopened_goes_on_where_it_ended(folder: RunFolder) -> None:
    finished(folder)
    folder.close()
    again, past = RunFolder.reopen(folder.path)
    assert past.trials["status"].tolist() == ["ok", "skipped", "skipped"]
    assert past.missing == {"0002-accuracy", "0003-latency"}
    finished(again, "0002-accuracy")
    again.append_process(PROCESS, samples=[sample(process=7)])
    again.close()
    run = load(folder.path)
    assert run.missing == {"0003-latency"}
    assert run.samples["process"].tolist() == [7]
    assert run.damage == ()


def test_half_a_record_is_gone_once_a_run_was_reopened(folder: RunFolder) -> None:
    finished(folder)
    folder.close()
    journal = folder.path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-5])
    again, past = RunFolder.reopen(folder.path)
    assert "cut off while it was written" in past.damage[0]
    finished(again)
    again.close()
    run = load(folder.path)
    assert (run.damage, run.trials["status"].tolist()) == ((), ["ok", "skipped", "skipped"])


def test_folders_that_were_empty_and_did_not_travel_are_made_again(folder: RunFolder) -> None:
    folder.close()
    for name in FOLDERS:
        (folder.path / name).rmdir()
    RunFolder.reopen(folder.path)[0].close()
    assert all((folder.path / name).is_dir() for name in FOLDERS)


def test_a_run_that_is_being_written_is_not_reopened_and_not_made_anew(folder: RunFolder) -> None:
    with pytest.raises(HarnessError, match="run' is being written by another run; wait for it to end"):
        RunFolder.reopen(folder.path)
    with pytest.raises(HarnessError, match="run' exists and is not empty"):
        RunFolder(folder.path, HEADER)
    finished(folder)  # and it is not disturbed
    folder.close()
    again, past = RunFolder.reopen(folder.path)
    again.close()
    assert past.missing == {"0002-accuracy", "0003-latency"}


def test_of_two_that_find_a_folder_empty_at_once_one_is_refused(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder.path / "run.json").read_bytes()
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(()))
    with pytest.raises(HarnessError, match="run' is being written by another run; choose another --out"):
        RunFolder(folder.path, HEADER | {"name": "the second"})
    assert (folder.path / "run.json").read_bytes() == before
    folder.close()


@pytest.mark.parametrize("kept", ["nothing", "run.json", "journal.jsonl"])
def test_what_is_no_run_is_not_reopened_and_left_as_it_was(folder: RunFolder, kept: str) -> None:
    folder.close()
    for path in (folder.path / "run.json", folder.path / "journal.jsonl"):
        if path.name != kept:
            path.unlink()
    before = sorted(folder.path.iterdir())
    with pytest.raises(HarnessError, match=r"is not a run: |cannot be written: No such file"):
        RunFolder.reopen(folder.path)
    assert sorted(folder.path.iterdir()) == before


def test_a_run_that_cannot_be_reopened_is_not_held(folder: RunFolder) -> None:
    folder.close()
    (folder.path / "samples").rmdir()
    (folder.path / "samples").touch()
    with pytest.raises(HarnessError, match="run' cannot be written: File exists"):
        RunFolder.reopen(folder.path)
    (folder.path / "samples").unlink()
    RunFolder.reopen(folder.path)[0].close()


def test_samples_that_cannot_be_written_leave_the_journal_as_it_was(folder: RunFolder) -> None:
    finished(folder)
    before = (folder.path / "journal.jsonl").read_bytes()
    (folder.path / "samples").rmdir()
    with pytest.raises(StoreError, match="run' cannot be written: No such file or directory"):
        folder.append_process(PROCESS, samples=[sample(process=7)])
    assert (folder.path / "journal.jsonl").read_bytes() == before
    folder.close()


def test_a_run_whose_folder_was_removed_says_so(folder: RunFolder) -> None:
    shutil.rmtree(folder.path)
    with pytest.raises(StoreError, match="run' was removed while the run was writing to it"):
        finished(folder)
    folder.close()


def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomically(path, "new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [(one.name, one.read_text(encoding="utf-8")) for one in tmp_path.iterdir()] == [("file", "old")]


def test_of_two_that_write_a_file_at_once_each_writes_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_SLOWLY, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == "almost\n"
        write_atomically(path, "ours" * 100)
        assert path.read_text(encoding="utf-8") == "ours" * 100
        other.communicate("go on\n")
    assert other.returncode == 0
    assert path.read_text(encoding="utf-8") == "theirs" * 1000
    assert list(tmp_path.iterdir()) == [path]


# ------------------------------------------------------------------------------------------------- names and units


def test_every_status_is_explained_and_the_good_ones_are_statuses() -> None:
    assert set(STATUSES) > GOOD_STATUSES
    assert all(STATUSES.values())


def make_latencies(folder: RunFolder) -> None:
    """Two processes of one instance each, whose calls that count are 0.25 s."""
    for p in (1, 2):
        calls = [sample(slice=p, process=p, call=call, elapsed_s=0.25) for call in range(3)]
        folder.append_process(PROCESS | {"slice": p, "process": p}, samples=calls)
    finished(folder, "0003-latency")


def test_the_tables_have_their_documented_columns_and_units(folder: RunFolder) -> None:
    finished(folder)
    make_latencies(folder)
    folder.close()
    run = load(folder.path)
    assert run.trials.columns.tolist() == TRIAL_COLUMNS
    assert run.parity.columns.tolist() == PARITY_COLUMNS
    assert run.gradients.columns.tolist() == GRADIENT_COLUMNS
    assert run.audits.columns.tolist() == AUDIT_COLUMNS
    assert run.scores.columns.tolist() == SCORE_COLUMNS
    assert run.curves.columns.tolist() == CURVE_COLUMNS
    assert run.samples.columns.tolist() == SAMPLE_COLUMNS
    assert run.instances.columns.tolist() == INSTANCE_COLUMNS
    assert run.processes.columns.tolist() == PROCESS_COLUMNS
    assert run.matrices.columns.tolist() == MATRIX_COLUMNS
    assert run.machine.columns.tolist() == MACHINE_COLUMNS
    assert run.latency.columns.tolist() == LATENCY_COLUMNS
    assert run.calibration.columns.tolist() == CALIBRATION_COLUMNS
    measured = [name for name in LATENCY_COLUMNS if pd.api.types.is_float_dtype(run.latency[name])]
    assert {"latency_s", "p99_bound_s", "throughput_per_s"} <= set(measured)
    assert [name for name in measured if not name.endswith(UNITS) and name not in DIMENSIONLESS] == []
    assert [name for name in SAMPLE_COLUMNS if name.endswith("_s")] == ["start_s", "elapsed_s"]


def test_every_number_of_a_process_is_a_count_or_has_its_unit_in_its_name() -> None:
    counts = {"slice", "process", "seconds", "gc_collections", "page_faults_major", "page_faults_minor"}
    counts |= {"involuntary_switches", "voluntary_switches"}
    assert {name for name in NUMERIC_PROCESS_COLUMNS if not name.endswith(UNITS)} == counts


def test_a_derived_table_is_derived_once(folder: RunFolder) -> None:
    make_latencies(folder)
    folder.close()
    run = load(folder.path)
    assert run.latency is run.latency
    assert run.calibration is run.calibration


def test_every_column_of_every_table_is_documented(folder: RunFolder) -> None:
    text = (Path(__file__).parent.parent / "docs" / "tables.md").read_text(encoding="utf-8")
    finished(folder)
    folder.close()
    run = load(folder.path)
    names = {str(name) for table in (run.summary, run.latency, run.calibration) for name in table.columns}
    names |= {*TRIAL_COLUMNS, *PARITY_COLUMNS, *GRADIENT_COLUMNS, *SCORE_COLUMNS, *CURVE_COLUMNS, *SAMPLE_COLUMNS}
    names |= {*INSTANCE_COLUMNS, *PROCESS_COLUMNS, *MATRIX_COLUMNS, *MACHINE_COLUMNS}
    scenarios = tuple(f"{scenario.replace('-', '_')}_" for scenario in SCENARIOS)
    undocumented = {
        name
        for name in names
        if f"`{name}`" not in text
        and not any(name.startswith(s) and f"`<scenario>_{name.removeprefix(s)}`" in text for s in scenarios)
    }
    assert undocumented == set()
