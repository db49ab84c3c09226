"""What pytest-benchmark measured becomes a run: its calls are kept, and nothing is claimed that its file cannot say."""

from __future__ import annotations

import contextlib
import copy
import json
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import ENVIRONMENT, Timed, five
from made_up_runs import write_run as write_made_up_run

import harness as rnn_harness
from harness import HarnessError, load
from harness.charts import distributions
from harness.cli import main
from harness.formats import BUILT_IN
from harness.importing import parse, safe_name, write_run
from harness.store import Run
from harness.tables import records

TESTS = """
import pytest

@pytest.mark.parametrize("count", [10, 1000])
def test_sum(benchmark, count):
    benchmark.pedantic(sum, args=(range(count),), rounds=7, iterations=2)

class TestMost:
    def test_of_two(self, benchmark):
        benchmark.pedantic(max, args=(1, 2), rounds=6)
"""
FILE: dict[str, Any] = {
    "machine_info": {
        "machine": "x86_64",
        "system": "Linux",
        "release": "6.1-x",
        "python_version": "3.11.9",
        "python_implementation": "CPython",
        "cpu": {"brand_raw": "A CPU", "count": 2},
    },
    "commit_info": {"id": "abc", "dirty": True},
    "benchmarks": [{"fullname": "t.py::test_a", "stats": {"data": [0.002, 0.001, 0.009], "iterations": 3}}],
    "datetime": "2026-01-02T04:04:05+01:00",
    "version": "5.3.1",
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pytest-benchmark has written a file in every way: saved with data, without, and as JSON."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "test_most.py").write_text(TESTS, encoding="utf-8")
    for options in (["json=all.json", "save=bare"], ["save=data", "save-data"]):
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
        command += [f"--benchmark-{option}" for option in options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an empty current folder."""
    monkeypatch.chdir(tmp_path)


def harness(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def imported(content: Any, out: str = "out") -> Run:
    """A run made of a file with this content, without its report."""
    write_run(parse(json.loads(json.dumps(content))), Path(out), "in", ["harness", "import", "in.json"])
    return load(out)


def reported(content: Any) -> tuple[str, str]:
    """What `harness import` prints of such a file, and its report."""
    Path("in.json").write_text(json.dumps(content), encoding="utf-8")
    result = harness("import", "in.json", "--out", "out")
    assert result.exit_code == 0, result.output
    return result.stdout, Path("out/report.md").read_text(encoding="utf-8")


def changed(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(FILE) | changes


def benchmarks(*names: str) -> dict[str, Any]:
    """A file of benchmarks with these names."""
    return changed(benchmarks=[{"fullname": name, "stats": {"data": [0.001]}} for name in names])


def only(measured: Path, pattern: str) -> Path:
    (path,) = measured.glob(pattern)
    return path


# -------------------------------------------------------------------------------------------- what is in the file


@pytest.mark.parametrize("written", ["all.json", ".benchmarks/*/*_data.json"])
def test_every_benchmark_that_pytest_wrote_becomes_a_row_with_its_calls(measured: Path, written: str) -> None:
    path = only(measured, written)
    assert harness("import", str(path), "--out", "out").exit_code == 0
    run, content = load("out"), json.loads(path.read_text(encoding="utf-8"))
    assert list(run.latency["variant"]) == ["test_sum-10@pytest", "test_sum-1000@pytest", "TestMost.test_of_two@pytest"]
    assert list(run.latency["samples"]) == [7, 7, 6]
    theirs = [own["stats"] for own in content["benchmarks"]]
    assert list(run.latency["latency_s"]) == pytest.approx([stats["median"] for stats in theirs], rel=1e-12)
    for (_, own), stats in zip(run.samples.groupby("trial", sort=False), theirs, strict=True):
        assert list(own["elapsed_s"]) == pytest.approx(stats["data"], rel=1e-12)
    assert set(run.latency["task"]) == {"test_most.py"}
    assert run.environment["python"] == content["machine_info"]["python_version"]
    assert [own["iterations"] for own in run.header["imported"]["benchmarks"].values()] == [2, 2, 1]


def test_statistics_without_calls_are_refused_and_the_option_that_keeps_them_is_named(measured: Path) -> None:
    result = harness("import", str(only(measured, ".benchmarks/*/*_bare.json")))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "'test_most.py::test_sum[10]' has no raw samples" in result.stderr
    assert "--benchmark-save-data" in result.stderr
    assert not Path("results").exists()


def test_without_a_folder_a_new_one_in_results_is_made() -> None:
    Path("0001_before.json").write_text(json.dumps(FILE), encoding="utf-8")
    assert harness("import", "0001_before.json").exit_code == 0
    (path,) = Path("results").iterdir()
    assert re.fullmatch(r"0001_before-\d{8}-\d{6}", path.name)
    assert load(path).header["name"] == "0001_before"


def test_the_environment_is_what_the_file_says_and_no_more() -> None:
    facts = imported(FILE).environment
    assert facts.pop("command")[0] == "harness"
    assert facts == {
        "started_utc": "2026-01-02T03:04:05+00:00",
        "commit": "abc+changes",
        "python": "3.11.9",
        "python_implementation": "CPython",
        "os": "Linux-6.1-x",
        "machine": "x86_64",
        "cpu_model": "A CPU",
        "cpu_logical_count": 2,
        "versions": {"pytest-benchmark": "5.3.1"},
    }


def test_a_file_that_says_little_of_the_machine_is_imported_all_the_same() -> None:
    strange = {"machine_info": None, "commit_info": {"id": "unversioned"}, "version": 5}
    facts = imported(changed(**strange)).environment
    assert {facts[name] for name in ("commit", "python", "os", "machine", "cpu_model", "cpu_logical_count")} == {None}
    assert facts["versions"] == {}


# ---------------------------------------------------------------------------------------- what nobody knows


def test_parity_is_unknown_and_the_summary_says_so() -> None:
    (row,) = imported(FILE).summary.to_dict("records")
    assert (row["parity"], row["status"]) == ("skipped", "skipped")
    assert row["reason"] == "imported from pytest-benchmark, which does not check what is computed"


def test_what_is_shown_claims_no_parity_and_no_size_and_says_what_stays_unknown() -> None:
    printed, report = reported(FILE)
    (line,) = (line for line in printed.splitlines() if line.startswith("test_a@pytest"))
    assert line.split() == ["test_a@pytest", "skipped", "2", "ms"]
    assert printed.splitlines()[-4:] == [
        "Imported 1 benchmark into out.",
        "Parity is unknown: pytest-benchmark does not check what is computed.",
        "Intervals are unknown: the file does not say which calls shared a process.",
        "Percentiles are unknown where a value of the file is the mean of several calls.",
    ]
    assert report.splitlines()[2:5] == ["## t.py", "", "sizes unknown."]
    assert re.search(r"^\| test\\_a@pytest \| skipped \| 2 ms \|$", report, re.MULTILINE)
    assert "which does not check what is computed" in report
    tables = report.partition("<summary>Environment")[0]
    assert not re.search(r"\| (ok|exact)\b|\b(None|nan|NaN|NA|unknown device)\b", tables)


@pytest.mark.parametrize(("iterations", "known"), [(1, True), (3, False)])
def test_percentiles_are_those_of_calls_and_unknown_where_a_value_is_a_mean_of_them(
    iterations: int, known: bool
) -> None:
    run = imported(
        changed(benchmarks=[{"fullname": "t.py::a", "stats": {"data": [0.002] * 99, "iterations": iterations}}])
    )
    (row,) = run.latency.to_dict("records")
    for name in ("p50_s", "p90_s", "p90_bound_s", "p99_s"):
        assert (row[name] == 0.002) == known
    assert row["latency_s"] == pytest.approx(0.002)
    assert distributions(run, run.latency, ["a@pytest"]) is None or known


def test_intervals_are_unknown() -> None:
    (row,) = imported(FILE).latency.to_dict("records")
    assert row["latency_s"] == pytest.approx(0.002)
    assert row["latency_low_s"] != row["latency_low_s"]
    assert (row["processes"], row["instances"], row["latency_unit"]) == (1, 1, "process")


def test_no_rate_is_made_of_a_batch_that_is_unknown() -> None:
    (row,) = imported(FILE).latency.to_dict("records")
    assert row["throughput_per_s"] != row["throughput_per_s"]


@pytest.mark.parametrize("name", ["csv", "json", "latex", "markdown", "html", "bmf"])
def test_what_is_imported_can_be_written_in_every_format(name: str) -> None:
    imported(FILE)
    assert harness("report", "out", "--format", name).exit_code == 0


# ------------------------------------------------------------------------------- compare, history and gate read it


@pytest.fixture
def two() -> tuple[str, str]:
    """The same benchmark imported twice, a day apart and twice as slow."""
    imported(FILE, "old")
    slower = changed(datetime="2026-01-03T03:04:05+00:00")
    slower["benchmarks"][0]["stats"]["data"] = [0.004, 0.004, 0.004]
    imported(slower, "new")
    return "old", "new"


def test_two_imports_are_compared_without_a_claim(two: tuple[str, str]) -> None:
    result = harness("compare", *two)
    assert result.exit_code == 0, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("test_a@pytest"))
    assert re.fullmatch(r"test_a@pytest +single-stream +2 ms +4 ms +2\.000× +undecided +1 \| 1 processes", line.strip())


def test_the_gate_is_undecided_for_one_process_has_no_interval(two: tuple[str, str]) -> None:
    result = harness("gate", *two, "--max-slowdown", "3%")
    assert result.exit_code == 2
    assert "undecided test_a@pytest, single-stream, t.py, compute: 2.000× (interval unknown)" in result.stdout


def test_a_history_shows_both(two: tuple[str, str]) -> None:
    result = harness("history", ".")
    assert result.exit_code == 0, result.output
    assert re.search(r"^test_a@pytest +single-stream .*2 ms +4 ms$", result.stdout, re.MULTILINE)


# ----------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("fullname", "task", "variant"),
    [
        ("test_x.py::test_sum", "test_x.py", "test_sum@pytest"),
        ("tests/test_x.py::TestA::test_b[3]", "tests.test_x.py", "TestA.test_b-3@pytest"),
        ("my-tests/x.py::test_b[a-1.5]", "my-tests.x.py", "test_b-a-1.5@pytest"),
        ("a: b::torch-lstm@eager[old]", "a-b-75cd1899", "torch-lstm@eager[old]"),
        ("test_sum", "unknown", "test_sum@pytest"),
    ],
)
def test_a_name_becomes_one_that_is_safe_everywhere(fullname: str, task: str, variant: str) -> None:
    (found,) = parse(benchmarks(fullname)).benchmarks
    assert (found.task, found.variant) == (task, variant)


@given(st.text() | st.from_regex(r"\A[A-Z]?[a-z_]+(\[[a-z0-9|;&$ -]+\])?\Z"))
def test_any_name_is_letters_digits_dots_and_dashes_and_no_longer_than_a_models(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", safe_name(text))


def test_names_that_differ_in_what_is_dropped_still_differ() -> None:
    names = ["test_a[x y]", "test_a[x  y]", "test_a[x;y]", "test_" + "a" * 80, "test_" + "a" * 81]
    assert len({safe_name(name) for name in names}) == len(names)
    assert max(len(safe_name(name)) for name in names) == 64


def test_text_of_a_stranger_stays_text() -> None:
    hostile = "t.py::test_a[</script>|`x`\x1b[31m\n]"
    reported(benchmarks(hostile))
    run = load("out")
    assert re.fullmatch(r"[\w.-]+@pytest", run.latency["variant"].item())
    (source,) = run.header["imported"]["benchmarks"].values()
    assert source["fullname"] == hostile
    assert "</script>|" not in Path("out/report.html").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------- bad files


def stats(**changes: Any) -> dict[str, Any]:
    return changed(benchmarks=[{"fullname": "t.py::test_a", "stats": {"data": [0.001], **changes}}])


BAD: dict[str, tuple[Any, str]] = {
    "a list": ([], "it is no file of pytest-benchmark; write it with pytest --benchmark-json FILE"),
    "no benchmarks": ({}, "it is no file of pytest-benchmark"),
    "empty": (changed(benchmarks=[]), "it holds no benchmark"),
    "a benchmark that is none": (changed(benchmarks=[1]), "benchmark 1 is none of pytest-benchmark's"),
    "no statistics": (changed(benchmarks=[{"fullname": "a"}]), "benchmark 1 is none of pytest-benchmark's"),
    "no name": (changed(benchmarks=[{"stats": {"data": [1.0]}}]), "benchmark 1 has no name"),
    "no data": (stats(data=[]), "'t.py::test_a' has no raw samples, only statistics"),
    "data that is none": (stats(data="much"), "'t.py::test_a' has data that is no list of seconds"),
    "a call that is no number": (stats(data=[0.1, "1"]), "'t.py::test_a' has data that is no list of seconds"),
    "a call that is true": (stats(data=[True]), "'t.py::test_a' has data that is no list of seconds"),
    "a call before its beginning": (stats(data=[-0.1]), "'t.py::test_a' has data that is no list of seconds"),
    "a call that is not a number": (stats(data=[float("nan")]), "'t.py::test_a' has data that is no list of seconds"),
    "a call for ever": (stats(data=[float("inf")]), "'t.py::test_a' has data that is no list of seconds"),
    "a call longer than a float": (stats(data=[10**400]), "'t.py::test_a' has data that is no list of seconds"),
    "no iterations": (stats(iterations=0), "'t.py::test_a' has no whole number of iterations"),
    "no date": (changed(datetime="yesterday"), "it does not say when it was made"),
    "one name twice": (
        benchmarks("a/x.py::test_b", "a.x.py::test_b"),
        "'a/x.py' and 'a.x.py' would both be the task a.x.py; rename one",
    ),
    "one file's name twice": (
        benchmarks("a/x.py::test_b", "a.x.py::test_c"),
        "'a/x.py' and 'a.x.py' would both be the task a.x.py; rename one",
    ),
    "the same twice": (benchmarks("x.py::a", "x.py::a"), "'x.py::a' and 'x.py::a' would both be a@pytest on x.py"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_one_clear_line_and_nothing_is_written(kind: str) -> None:
    content, said = BAD[kind]
    Path("in.json").write_text(json.dumps(content), encoding="utf-8")
    result = harness("import", "in.json", "--out", "out")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"harness: 'in.json' cannot be imported: {said}")
    assert result.stderr.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["in.json"]


@pytest.mark.parametrize("content", [b"", b"name,mean\n", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_is_one_clear_line(content: bytes) -> None:
    Path("in.json").write_bytes(content)
    result = harness("import", "in.json")
    assert result.exit_code == 2
    assert result.stderr.startswith("harness: 'in.json' is no JSON (")
    assert result.stderr.endswith("); write it with pytest --benchmark-json FILE\n")
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_not_empty_is_refused_and_stays_as_it_is() -> None:
    Path("out").mkdir()
    Path("out/precious").write_text("mine", encoding="utf-8")
    Path("in.json").write_text(json.dumps(FILE), encoding="utf-8")
    result = harness("import", "in.json", "--out", "out")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "harness: 'out' exists and is not empty; choose another --out or remove it\n"
    assert [path.name for path in Path("out").iterdir()] == ["precious"]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@given(SCALARS | st.lists(SCALARS, max_size=2), st.sampled_from([*FILE]))
def test_anything_in_any_place_of_a_file_is_read_or_refused(value: Any, place: str) -> None:
    for content in (changed(**{place: value}), changed(**{place: {"cpu": value, "id": value, "system": value}})):
        with contextlib.suppress(HarnessError):
            parse(content)


# ------------------------------------------------------------------------------------------------------ round trip


def test_what_the_harness_exported_comes_back_with_its_medians_and_variants(tmp_path: Path) -> None:
    timed = [Timed("a@r", {(1, 1, 1): 0.001}), Timed("b-1@r", {(1, 1, 1): 0.0031}), Timed("c@r[old]", five(0.002, 0.1))]
    facts = ENVIRONMENT | {"started_utc": "2026-01-02T03:04:05+00:00"}
    ours = load(write_made_up_run(tmp_path / "ours", *timed, environment=facts))
    BUILT_IN["pytest-benchmark"].write(ours, tmp_path)
    again = imported(json.loads((tmp_path / "0001_latency.json").read_text(encoding="utf-8")), "again")
    pooled = ours.samples[ours.samples["call"] > 0].groupby(["trial", "boundary"], sort=False)["elapsed_s"]
    medians = [statistics.median(own) for _, own in pooled]
    assert list(again.latency["latency_s"]) == pytest.approx(medians, rel=1e-12)
    for name in ("variant", "task", "scenario", "batch", "time", "boundary", "dtype", "threads", "hidden_size"):
        assert list(again.latency[name]) == list(ours.latency[name])
    assert list(again.latency["latency_s"][:4]) == pytest.approx([0.001, 0.002, 0.0031, 0.0062])  # one instance each
    assert again.environment["versions"] == {"rnn-harness": rnn_harness.__version__}
    assert again.environment["os"] == ours.environment["os"]


def test_of_an_export_of_the_harness_it_is_said_what_is_lost(tmp_path: Path) -> None:
    facts = ENVIRONMENT | {"started_utc": "2026-01-02T03:04:05+00:00"}
    ours = load(write_made_up_run(tmp_path / "ours", Timed("a@r", five(0.002, 0.1)), environment=facts))
    BUILT_IN["pytest-benchmark"].write(ours, tmp_path)
    content = json.loads((tmp_path / "0001_latency.json").read_text(encoding="utf-8"))
    assert parse(content).limits[-1].startswith("This is an export of rnn-harness: processes are not read from it")
    assert not parse(FILE).limits[-1].startswith("This is an export")


TOLD: dict[str, Any] = {
    "task": "digits",
    "device": "cpu",
    "dtype": "float32",
    "threads": 2,
    "input_size": 8,
    "hidden_size": 32,
    "num_layers": 1,
    "scenario": "offline",
    "batch": 4,
    "time": 9,
    "caches": None,
    "boundary": "compute",
}


def told(variant: str = "a@r", iterations: int = 1, seconds: float = 0.001, **changes: Any) -> dict[str, Any]:
    """A benchmark of the harness's own."""
    extra = {"parity": "ok", "compute_dtype": changes.pop("compute_dtype", "float32")}
    params = TOLD | changes
    group = f"{params['scenario']} {params['boundary']} {params['task']} {params['hidden_size']}"
    stats = {"data": [seconds] * 3, "iterations": iterations}
    return {"fullname": f"{group}::{variant}", "params": params, "extra_info": extra, "stats": stats}


def rows_of(run: Run, kind: str) -> list[dict[str, Any]]:
    return [row for row in records(run.trials) if row["kind"] == kind]


def test_a_benchmark_of_the_harness_own_says_what_was_timed() -> None:
    file = changed(benchmarks=[told(iterations=2), told(boundary="end-to-end"), told(scenario="stream", batch=1)])
    run = imported(file)
    (parity,) = rows_of(run, "parity")
    offline, stream = rows_of(run, "latency")
    shared = ("task", "device", "dtype", "compute_dtype", "threads", "input_size", "hidden_size", "num_layers")
    for row in (parity, offline, stream):
        assert tuple(row[name] for name in shared) == ("digits", "cpu", "float32", "float32", 2, 8, 32, 1)
    assert (offline["scenario"], offline["batch"], offline["time"]) == ("offline", 4, 9)
    assert (stream["scenario"], stream["batch"], stream["time"]) == ("stream", 1, 9)
    assert parity["reason"] == "its file says that parity was ok; the checks themselves are not in it"
    places = list(zip(run.latency["scenario"], run.latency["boundary"], strict=True))
    assert places == [("offline", "compute"), ("offline", "end-to-end"), ("stream", "compute")]
    assert [own["iterations"] for own in run.header["imported"]["benchmarks"].values()] == [2, 1]  # the larger


def test_threads_that_were_not_held_are_told() -> None:
    held, other = told(), told("b@r")
    other["extra_info"]["threads_not_held"] = ["libgomp.so: 4", "lib\x1bblas.so: 2", 3]
    found = parse(changed(benchmarks=[held, other]))
    said = "Threads were not what a benchmark says, in these pools: lib\\x1bblas.so: 2, libgomp.so: 4."
    assert [line for line in found.limits if "hread" in line] == [said]
    assert not any("hread" in line for line in parse(changed(benchmarks=[held])).limits)
    sources = imported(changed(benchmarks=[held, other])).header["imported"]["benchmarks"].values()
    assert [own.get("threads_not_held") for own in sources] == [None, ["libgomp.so: 4", "lib\\x1bblas.so: 2"]]


def test_fewer_bits_are_told_as_such() -> None:
    (row,) = rows_of(imported(changed(benchmarks=[told(compute_dtype="int8")])), "latency")
    assert (row["dtype"], row["compute_dtype"]) == ("float32", "int8")


def test_cold_caches_are_told_and_a_file_from_before_there_were_any_knows_none() -> None:
    old = told("b@r")
    del old["params"]["caches"]
    rows = rows_of(imported(changed(benchmarks=[told(), told(caches="cold"), old])), "latency")
    known = [(row["variant"], row["scenario"], row["caches"] == "cold") for row in rows]
    assert known == [("a@r", "offline", False), ("a@r", "offline", True), ("b@r", "offline", False)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scenario": "server"},
        {"boundary": "whole"},
        {"threads": 0},
        {"batch": "4"},
        {"time": True},
        {"task": "a b"},
        {"device": None},
        {"dtype": "x" * 65},
        {"more": 1},
        {"caches": "lukewarm"},
        {"caches": 1},
    ],
)
def test_a_benchmark_that_says_something_else_is_anybodys(wrong: dict[str, Any]) -> None:
    own = told()
    own["params"] = own["params"] | wrong
    (found,) = parse(changed(benchmarks=[own])).benchmarks
    assert (found.told, found.parity, found.variant, found.boundary) == ({}, "", "a@r", "compute")
    assert found.shape == {"scenario": "single-stream"}


def test_the_same_variant_twice_is_refused_unless_something_tells_them_apart() -> None:
    different = [told(), told(batch=5), told(hidden_size=64), told(dtype="float64"), told("b@r")]
    assert len(parse(changed(benchmarks=different)).benchmarks) == 5
    with pytest.raises(HarnessError, match=r"would both be a@r on digits; rename one"):
        parse(changed(benchmarks=[told(), told()]))


def test_what_is_known_stays_known_beside_what_is_not() -> None:
    file = changed(benchmarks=[told(), *FILE["benchmarks"]])
    printed, _ = reported(file)
    assert "digits on cpu: I=8 H=32 L=1 T=9, offline batch 4, float32, 2 threads a call" in printed
    assert "t.py: sizes unknown" in printed
    assert "Parity is what the file says: the checks themselves are not in it." in printed
    assert "Parity is unknown: pytest-benchmark does not check what is computed." in printed
    assert harness("report", "out", "--format", "pytest-benchmark").exit_code == 0
    again = json.loads(Path("out/pytest-benchmark/0001_latency.json").read_text(encoding="utf-8"))
    known = next(own for own in again["benchmarks"] if own["name"] == "a@r")
    assert known["params"] == TOLD


def test_an_imported_run_is_exported_as_what_it_was(tmp_path: Path) -> None:
    BUILT_IN["pytest-benchmark"].write(imported(FILE), tmp_path)
    content = json.loads((tmp_path / "0001_latency.json").read_text(encoding="utf-8"))
    assert [own["stats"]["iterations"] for own in content["benchmarks"]] == [3]
    assert content["commit_info"]["project"] == ""
