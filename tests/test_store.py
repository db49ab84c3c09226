"""The store: what is written comes back, damage is named, and nothing is written where it must not be."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness import HarnessError
from harness.store import (
    CURVE_COLUMNS,
    GOOD_STATUSES,
    GRADIENT_COLUMNS,
    INSTANCE_COLUMNS,
    NUMERIC_PROCESS_COLUMNS,
    PARITY_COLUMNS,
    PROCESS_COLUMNS,
    SAMPLE_COLUMNS,
    SCHEMA_VERSION,
    SCORE_COLUMNS,
    STATUSES,
    TRIAL_COLUMNS,
    RunFolder,
    load,
)
from harness.tables import CALIBRATION_COLUMNS, LATENCY_COLUMNS

HEADER: dict[str, Any] = {
    "name": "hand-made",
    "baselines": {"lstm": "a@r"},
    "floors": [],
    "plugins": [],
    "environment": {"os": "none", "versions": {}},
    "trials": [
        {
            **dict.fromkeys(TRIAL_COLUMNS[:-2]),
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
UNITS = ("_s", "_per_s", "_share", "_mhz", "_c")
DIMENSIONLESS = {"ratio", "ratio_low", "ratio_high", "half_width", "autocorrelation"}
PROCESS: dict[str, Any] = dict.fromkeys(NUMERIC_PROCESS_COLUMNS, 0.1 + 0.2)
PROCESS |= {"slice": 2, "process": 7, "task": "t", "runtime": "r", "python": "", "governor": "performance"}
PROCESS |= {"started_s": 1.7e9 + 1 / 3, "canary_s": 1e-9 / 3, "involuntary_switches": 12345}
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNT = st.integers(0, 2**53)
SAMPLE = st.tuples(
    *(COUNT,) * 3, st.sampled_from(["compute", "end-to-end"]), *(COUNT,) * 3, FINITE, FINITE, st.sampled_from([0, 1])
)


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
    for table in (run.parity, run.gradients, run.scores, run.curves, run.samples, run.instances, run.processes):
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
        [1, 1, 1, "compute", 0, 0, 0, 0.1 + 0.2, 1e-9 / 3, 0],
        [2, 7, 4, "end-to-end", 1, 3, 4, 12345.678901234, 5e-324, 1],
    ]
    folder.write_samples("0003-latency", rows)
    folder.close()
    samples = load(folder.path).samples
    assert samples.columns.tolist() == SAMPLE_COLUMNS
    assert samples.to_numpy().tolist() == [["0003-latency", *row] for row in rows]


@given(rows=st.lists(SAMPLE, min_size=1, max_size=20))
def test_any_samples_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[Any, ...]]) -> None:
    folder = RunFolder(tmp_path_factory.mktemp("store") / "run", HEADER)
    folder.write_samples("0003-latency", rows)
    folder.close()
    assert load(folder.path).samples.to_numpy().tolist() == [["0003-latency", *row] for row in rows]


@pytest.mark.parametrize(("others", "second"), [([0, 1], [1, 0]), ([0, 1], ["", ""]), (["", ""], ["", 1])])
def test_what_cannot_be_told_of_a_disturbance_stays_unknown(
    folder: RunFolder, others: list[Any], second: list[Any]
) -> None:
    """One trial may know what another does not; pandas must not guess from the columns of either."""
    for trial, marks in (("0002-accuracy", others), ("0003-latency", second)):
        folder.write_samples(trial, [[1, 1, 1, "compute", 0, 0, call, 0.0, 0.5, m] for call, m in enumerate(marks)])
    folder.close()
    found = load(folder.path).samples["disturbed"]
    assert found.dtype == "Int64"
    assert [None if pd.isna(mark) else mark for mark in found] == [m if m != "" else None for m in (*others, *second)]


def test_how_instances_warmed_up_comes_back_beside_their_trial(folder: RunFolder) -> None:
    rows = [
        {"slice": 1, "process": 1, "instance": 1, "warmup_calls": 12, "is_steady": True},
        {"slice": 2, "process": 5, "instance": 3, "warmup_calls": 100, "is_steady": False},
    ]
    finished(folder, "0003-latency", instances=rows)
    folder.close()
    instances = load(folder.path).instances
    assert instances.columns.tolist() == INSTANCE_COLUMNS
    assert instances.to_dict("records") == [{"trial": "0003-latency", **row} for row in rows]


def test_processes_come_back_from_between_the_trials_in_the_order_they_ended(folder: RunFolder) -> None:
    folder.append({"process": PROCESS})
    finished(folder)
    folder.append({"process": PROCESS | {"process": 8, "runtime": "other"}})
    folder.append({"process": PROCESS | {"process": 9, "python": "new"}})
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
    folder.append({"process": PROCESS | told | {"governor": None}})
    folder.append({"process": {}})
    folder.close()
    row, nothing = load(folder.path).processes.to_dict("records")
    for name, value in told.items():
        assert row[name] == value if value is not None and math.isfinite(value) else math.isnan(row[name])
    assert row["canary_s"] == PROCESS["canary_s"]
    assert pd.isna(row["governor"])
    assert all(pd.isna(value) for value in nothing.values())


def test_a_trial_that_was_written_is_on_the_disk_before_the_folder_is_closed(folder: RunFolder) -> None:
    finished(folder)
    assert load(folder.path).trials["status"].tolist() == ["ok", "skipped", "skipped"]
    folder.close()


def test_a_last_record_that_was_cut_off_anywhere_is_dropped_and_the_others_stand(folder: RunFolder) -> None:
    finished(folder)
    finished(folder, "0002-accuracy", reason="é | \u2028", status="failed")
    folder.close()
    journal = folder.path / "journal.jsonl"
    whole = journal.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 1):
        journal.write_bytes(whole[:length])
        assert load(folder.path).trials["status"].tolist() == ["ok", "skipped", "skipped"]


def test_a_process_that_was_cut_off_is_dropped(folder: RunFolder) -> None:
    finished(folder)
    folder.append({"process": {"process": 1, "runtime": "r"}})
    folder.close()
    journal = folder.path / "journal.jsonl"
    whole = journal.read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole) - 1):
        journal.write_bytes(whole[:length])
        run = load(folder.path)
        assert run.processes.empty
        assert run.trials["status"].tolist() == ["ok", "skipped", "skipped"]


@pytest.mark.parametrize(
    ("process", "why"),
    [
        (None, "it is not a process's record"),
        (3, "it is not a process's record"),
        ([], "it is not a process's record"),
        ({"canary_s": "fast"}, "canary_s is no number"),
        ({"slice": {}}, "slice is no number"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"trial": "0002-accuracy", "status": "ok"}], ids=["alone", "with a trial"])
def test_a_damaged_process_is_named_with_its_line(
    folder: RunFolder, process: Any, why: str, more: dict[str, Any]
) -> None:
    finished(folder)
    folder.append({"process": PROCESS})
    folder.append({"process": process, **more})
    finished(folder, "0003-latency")
    folder.close()
    with pytest.raises(HarnessError, match=rf"journal\.jsonl', line 3 is damaged: {why}$"):
        load(folder.path)


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"}{", b"3", b"null", b"[]", b"{}", b'{"trial": "0003-latency"}'])
def test_a_damaged_line_in_the_middle_is_named(folder: RunFolder, line: bytes) -> None:
    finished(folder)
    finished(folder, "0002-accuracy")
    folder.close()
    journal = folder.path / "journal.jsonl"
    first, second, _ = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([first, line, second, b""]))
    with pytest.raises(HarnessError, match=r"journal\.jsonl', line 2 is damaged"):
        load(folder.path)


def test_a_damaged_last_line_that_was_written_to_its_end_is_named(folder: RunFolder) -> None:
    finished(folder)
    folder.close()
    with (folder.path / "journal.jsonl").open("ab") as file:
        file.write(b'{"trial": \n')
    with pytest.raises(HarnessError, match="line 2 is damaged"):
        load(folder.path)


def test_a_trial_that_was_never_planned_is_named(folder: RunFolder) -> None:
    finished(folder, "0099-parity")
    folder.close()
    with pytest.raises(HarnessError, match="a trial '0099-parity' that was never planned; the folder is damaged"):
        load(folder.path)


def test_a_trial_that_was_recorded_twice_is_named(folder: RunFolder) -> None:
    finished(folder)
    finished(folder)
    folder.close()
    with pytest.raises(HarnessError, match="records trial '0001-parity' twice; the folder is damaged"):
        load(folder.path)


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, SCHEMA_VERSION - 1, None, str(SCHEMA_VERSION)])
def test_a_run_of_another_schema_version_is_refused(folder: RunFolder, version: Any) -> None:
    folder.close()
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"schema_version": version}))
    with pytest.raises(HarnessError, match=f"has schema version {version}; this harness reads {SCHEMA_VERSION}"):
        load(folder.path)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[]", b"3", b'{"schema_version": %d}' % SCHEMA_VERSION])
def test_a_damaged_run_file_is_named(folder: RunFolder, text: bytes) -> None:
    folder.close()
    (folder.path / "run.json").write_bytes(text)
    with pytest.raises(HarnessError, match=r"run\.json' is damaged"):
        load(folder.path)


@pytest.mark.parametrize("key", HEADER)
def test_a_run_file_that_lacks_something_says_what(folder: RunFolder, key: str) -> None:
    folder.close()
    path = folder.path / "run.json"
    header = json.loads(path.read_text(encoding="utf-8"))
    del header[key]
    path.write_text(json.dumps(header), encoding="utf-8")
    with pytest.raises(HarnessError, match=rf"run\.json' is damaged: it lacks {key}$"):
        load(folder.path)


@pytest.mark.parametrize("text", [b"", b"\x00\xff\xfe", b"process,boundary\n1,compute\n", b'process\n"1'])
def test_a_damaged_samples_file_is_named(folder: RunFolder, text: bytes) -> None:
    folder.close()
    (folder.path / "samples" / "0003-latency.csv").write_bytes(text)
    with pytest.raises(HarnessError, match=r"0003-latency\.csv' is damaged"):
        load(folder.path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("elapsed_s", "fast", "not every elapsed_s is a number"),
        ("elapsed_s", "", "a time is missing"),
        ("start_s", "", "a time is missing"),
        ("process", "first", "not every process is a whole number"),
        ("slice", 0.5, "not every slice is a whole number"),
        ("call", "", "not every call is a whole number"),
        ("disturbed", "yes", "not every disturbed is a number"),
        ("disturbed", 2, "disturbed is 0, 1 or empty"),
    ],
)
def test_a_sample_that_is_no_number_is_named(folder: RunFolder, name: str, value: Any, why: str) -> None:
    sound = dict(zip(SAMPLE_COLUMNS[1:], [1, 1, 1, "compute", 0, 0, 1, 0.0, 0.5, 0], strict=True))
    folder.write_samples("0003-latency", [list(row.values()) for row in (sound, sound | {name: value})])
    folder.close()
    with pytest.raises(HarnessError, match=rf"0003-latency\.csv' is damaged: {why}$"):
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


def test_every_status_is_explained_and_the_good_ones_are_statuses() -> None:
    assert set(STATUSES) > GOOD_STATUSES
    assert all(STATUSES.values())


def make_latencies(folder: RunFolder) -> None:
    """Two processes of one instance each, whose calls that count are 0.25 s."""
    calls = [[p, p, 1, "compute", 0, 0, c, 0.5 * c, 0.25, 0] for p in (1, 2) for c in range(3)]
    folder.write_samples("0003-latency", calls)
    finished(folder, "0003-latency")


def test_the_tables_have_their_documented_columns_and_units(folder: RunFolder) -> None:
    finished(folder)
    make_latencies(folder)
    folder.close()
    run = load(folder.path)
    assert run.trials.columns.tolist() == TRIAL_COLUMNS
    assert run.parity.columns.tolist() == PARITY_COLUMNS
    assert run.gradients.columns.tolist() == GRADIENT_COLUMNS
    assert run.scores.columns.tolist() == SCORE_COLUMNS
    assert run.curves.columns.tolist() == CURVE_COLUMNS
    assert run.samples.columns.tolist() == SAMPLE_COLUMNS
    assert run.instances.columns.tolist() == INSTANCE_COLUMNS
    assert run.processes.columns.tolist() == PROCESS_COLUMNS
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
    names |= {*INSTANCE_COLUMNS, *PROCESS_COLUMNS}
    scenarios = ("single_stream_", "offline_", "training_step_")
    undocumented = {
        name
        for name in names
        if f"`{name}`" not in text
        and not any(name.startswith(s) and f"`<scenario>_{name.removeprefix(s)}`" in text for s in scenarios)
    }
    assert undocumented == set()
