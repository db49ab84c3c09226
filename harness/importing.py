"""What `harness import` does: a file of pytest-benchmark's becomes a run's folder.

Source: what pytest-benchmark 5.3 writes with `--benchmark-json`, and with `--benchmark-autosave --benchmark-save-data`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from harness.contract import COMPUTE_DTYPES, MOST_REASON, NAME, HarnessError, printable
from harness.journal import read_json
from harness.report import write_report
from harness.schema import LARGEST_WHOLE, TRIAL_COLUMNS, UNKNOWN
from harness.sides import Point
from harness.store import RunFolder, started
from harness.suite import Scenario
from harness.tables import BOUNDARIES
from harness.terminal import print_lines, print_summary

TOOL = "pytest-benchmark"
RUNTIME = "pytest"  # what stands behind the @ of a variant whose name has none
UNCHECKED = f"imported from {TOOL}, which does not check what is computed"
CHECKED = "its file says that parity was {}; the checks themselves are not in it"
HOW = "write it with pytest --benchmark-json FILE"
MOST_SECONDS = 1e9  # of one call; some 30 years
MOST_NAME = 64  # characters of a model's name, as the contract has it
WORD = re.compile(r"[A-Za-z0-9][\w.:-]{0,63}", re.ASCII)  # a device, say
FOLDED = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
NAMED = re.compile(r"([A-Za-z0-9][\w.]*)(?:\[([\w.-]+)\])?", re.ASCII)
VARIANT = re.compile(rf"({NAME})@({NAME})(?:\[({NAME})\])?")
PARITY_UNKNOWN = f"Parity is unknown: {TOOL} does not check what is computed."
PARITY_TOLD = "Parity is what the file says: the checks themselves are not in it."
INTERVALS = "Intervals are unknown: the file does not say which calls shared a process."
MEANS = "Percentiles are unknown where a value of the file is the mean of several calls."
THREADS = "Threads were not what a benchmark says, in these pools: {}."
EXPORTED = (
    "This is an export of rnn-harness: processes are not read from it, and estimates differ; the run itself has them."
)
SHAPE = ("scenario", "batch", "time", "caches")
COUNTS = ("threads", "input_size", "hidden_size", "num_layers", "batch", "time")
SETTING = ("device", "dtype", "compute_dtype", "threads", "input_size", "hidden_size", "num_layers")
AT = {"slice": 1, "process": 1, "instance": 1}  # where all calls were made: nobody knows more


@dataclass(frozen=True)
class Benchmark:
    """One benchmark of a file.

    Attributes:
        fullname: as pytest calls it: `tests/test_sum.py::test_sum[3]`.
        task: its file, as a name that is safe everywhere.
        variant, model, runtime, python: likewise, of what is measured.
        iterations: calls behind one value, which is their mean.
        data: in seconds, in the order they were measured.
        told: what was timed, of a benchmark of the harness's own: the fields of a `Point` but its variant, and
            `compute_dtype`.
        parity: what came of it, as far as the file says.
        threads_not_held: of a benchmark of the harness's own: pools that had another number, `libgomp.so: 4`.
    """

    fullname: str
    task: str
    variant: str
    model: str
    runtime: str
    python: str | None
    iterations: int
    data: list[float]
    told: Mapping[str, Any] = field(default_factory=dict)
    parity: str = ""
    threads_not_held: tuple[str, ...] = ()

    @property
    def boundary(self) -> str:
        """Which of `BOUNDARIES`."""
        return str(self.told.get("boundary", "compute"))

    @property
    def setting(self) -> dict[str, Any]:
        """Of a row of trials what all scenarios of the variant share."""
        row: dict[str, Any] = dict.fromkeys(TRIAL_COLUMNS[:-3])
        row |= {"variant": self.variant, "model": self.model, "runtime": self.runtime, "python": self.python, "twin": 0}
        row |= dict.fromkeys(("architecture", "device", "dtype", "compute_dtype"), UNKNOWN)
        return row | {name: self.told[name] for name in SETTING if name in self.told} | {"task": self.task}

    @property
    def shape(self) -> dict[str, Any]:
        """Of such a row what tells them apart."""
        return {name: self.told.get(name) for name in SHAPE} if self.told else {"scenario": "single-stream"}


@dataclass(frozen=True)
class Imported:
    """A file's benchmarks, and what it says of the machine, by the names of a run's environment."""

    facts: dict[str, Any]
    benchmarks: list[Benchmark]

    @property
    def limits(self) -> list[str]:
        """What a run that is made of it cannot say."""
        is_export = any(name.startswith("rnn-harness") for name in self.facts["versions"])
        has_means = any(own.iterations > 1 for own in self.benchmarks)
        parity = {PARITY_TOLD if own.parity else PARITY_UNKNOWN for own in self.benchmarks}
        pools = sorted({pool for own in self.benchmarks for pool in own.threads_not_held})
        threads = [THREADS.format(", ".join(pools))] if pools else []
        rest = [*([MEANS] if has_means else []), *threads, *([EXPORTED] if is_export else [])]
        return [*sorted(parity), INTERVALS, *rest]


def import_file(file: Path, out: Path | None, command: Sequence[str]) -> None:
    """Make a run of a file, with its report, and print the summary.

    Args:
        file: of pytest-benchmark's, with its raw samples.
        out: the run's folder; None for a new one in `results/`.
        command: the command line, for the environment.

    Raises:
        HarnessError: the file cannot be read, is not one, or has no raw samples; or the folder cannot be written.
    """
    try:
        found = parse(read_json(file.read_bytes()))
    except OSError as error:
        raise HarnessError(f"'{file}' cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise HarnessError(f"'{file}' is no JSON ({printable(error)}); {HOW}") from error
    except HarnessError as error:
        raise HarnessError(f"'{file}' cannot be imported: {error}") from error
    name = safe_name(file.stem, FOLDED)
    folder = out or Path("results") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    write_run(found, folder, name, command)
    print_summary(write_report(folder))
    count = len(found.benchmarks)
    print_lines([f"Imported {count} benchmark{'s' * (count != 1)} into {folder}.", *found.limits])


def parse(content: Any) -> Imported:
    """What a file of pytest-benchmark's holds, parsed as JSON.

    Raises:
        HarnessError: it is not one, says not when it was made, holds no raw samples, or two names become one.
    """
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise HarnessError(f"it is no file of {TOOL}; {HOW}")
    if not content["benchmarks"]:
        raise HarnessError(f"it holds no benchmark; {HOW}")
    benchmarks = [_benchmark(number, given) for number, given in enumerate(content["benchmarks"], start=1)]
    seen: dict[str, str] = {}
    files: dict[str, str] = {}
    for own in benchmarks:
        place = own.fullname if own.told else own.fullname.partition("::")[0]
        if own.task != UNKNOWN and not own.told and files.setdefault(own.task, place) != place:
            names = f"'{printable(files[own.task])}' and '{printable(place)}'"
            raise HarnessError(f"{names} would both be the task {own.task}; rename one")
        if other := seen.get(key := f"{own.setting | own.shape} {own.boundary}"):
            names = f"'{printable(other)}' and '{printable(own.fullname)}'"
            raise HarnessError(f"{names} would both be {own.variant} on {own.task}; rename one")
        seen[key] = own.fullname
    return Imported(_facts(content), benchmarks)


def safe_name(text: str, pattern: re.Pattern[str] = NAMED) -> str:
    """A name of letters, digits and `._-` that is the same wherever this text comes from.

    A path or a class becomes one with dots, and a parameter follows a dash: `TestSum::test_sum[3]` is
    `TestSum.test_sum-3`. Any other text, and a longer one, keeps what it can and ends in a part of its SHA-256.
    """
    found = pattern.fullmatch(text.replace("::", ".").replace("/", "."))
    if found:
        name = "-".join(part for part in (found.groups() or (found[0],)) if part)
        if len(name) <= MOST_NAME:
            return name
    digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    kept = re.sub(r"[^A-Za-z0-9_.]+", "-", text)[: MOST_NAME - 9].strip("._-")
    return f"{kept or 'benchmark'}-{digest}"


def write_run(found: Imported, folder: Path, name: str, command: Sequence[str]) -> None:
    """Write a run in which every benchmark was timed, in one process, and none was checked.

    Args:
        found: a file's content.
        folder: new or empty.
        name: of the run.
        command: the command line.

    Raises:
        HarnessError: the folder is not empty or cannot be written.
    """
    header = {"environment": {**found.facts, "command": list(command)}}
    moment = started(header)
    at = f"{moment.timestamp():.6f}" if moment else "0"
    trials: dict[str, dict[str, Any]] = {}  # by what they are of
    ends: dict[str, dict[str, Any]] = {}
    samples: list[list[Any]] = []
    sources: dict[str, Any] = {}
    for turn, own in enumerate(found.benchmarks):
        unchecked = {"status": "skipped", "reason": CHECKED.format(own.parity) if own.parity else UNCHECKED}
        for kind, shape, end in (("parity", {}, unchecked), ("latency", own.shape, {"status": "ok", "reason": ""})):
            row = own.setting | {"kind": kind} | shape
            trial = trials.setdefault(str(row), row | {"trial": f"{len(trials) + 1:04d}-{kind}"})["trial"]
            ends.setdefault(trial, {"trial": trial, **end})
        source = sources.setdefault(trial, {"fullname": own.fullname, "iterations": 1})
        source["iterations"] = max(source["iterations"], own.iterations)  # of both boundaries
        if own.threads_not_held:
            source["threads_not_held"] = list(own.threads_not_held)
        calls = enumerate(own.data, start=1)  # a call 0 would not count
        samples += [[trial, *AT.values(), own.boundary, 0, turn, call, at, elapsed, ""] for call, elapsed in calls]
    rest = {"name": name, "suite": {}, "baselines": {}, "floors": [], "plugins": []}
    imported = {"from": TOOL, "benchmarks": sources}
    run = RunFolder(folder, {**rest, **header, "trials": list(trials.values()), "imported": imported})
    with contextlib.closing(run):
        run.append_process({"slice": AT["slice"], "process": AT["process"]}, samples=samples)
        for end in ends.values():
            run.append(end)


def _benchmark(number: int, given: Any) -> Benchmark:
    where = f"benchmark {number}"
    if not isinstance(given, dict) or not isinstance(given.get("stats"), dict):
        raise HarnessError(f"{where} is none of {TOOL}'s; {HOW}")
    fullname = given.get("fullname") or given.get("name")
    if not isinstance(fullname, str):
        raise HarnessError(f"{where} has no name; {HOW}")
    where, data = f"'{printable(fullname)}'", given["stats"].get("data")
    if not data:
        raise HarnessError(
            f"{where} has no raw samples, only statistics; keep them with pytest --benchmark-save-data, or {HOW}"
        )
    if not isinstance(data, list) or not all(map(_is_duration, data)):
        raise HarnessError(f"{where} has data that is no list of seconds; {HOW}")
    iterations = given["stats"].get("iterations", 1)
    if not _is_count(iterations):
        raise HarnessError(f"{where} has no whole number of iterations; {HOW}")
    place, colons, rest = fullname.partition("::")
    task, name = (safe_name(place, FOLDED), rest) if colons else (UNKNOWN, fullname)
    seconds = [float(value) for value in data]
    if not (known := VARIANT.fullmatch(name)):
        model = safe_name(name)
        return Benchmark(fullname, task, f"{model}@{RUNTIME}", model, RUNTIME, None, iterations, seconds)
    variant = name, known[1], known[2], known[3]
    told = _told(given.get("params"))
    if not told:
        return Benchmark(fullname, task, *variant, iterations, seconds)
    said = _part(given, "extra_info")
    computed = said.get("compute_dtype")
    told["compute_dtype"] = computed if computed in COMPUTE_DTYPES else told["dtype"]
    pools = said.get("threads_not_held")
    others = tuple(filter(None, map(_text, pools))) if isinstance(pools, list) else ()
    parity = _text(said.get("parity")) or ""
    return Benchmark(fullname, told["task"], *variant, iterations, seconds, told, parity, others)


def _told(params: Any) -> dict[str, Any]:
    """What a benchmark of the harness's own says was timed; nothing of any other, or if a value cannot be so."""
    params = {"caches": None} | params if isinstance(params, dict) else {}  # before there was another kind
    if set(params) != {own.name for own in fields(Point)} - {"variant"} or params["caches"] not in (None, "cold"):
        return {}
    texts = [params[name] for name in params if name not in (*COUNTS, "caches")]
    is_whole = all(params[name] is None or _is_count(params[name]) for name in COUNTS)
    is_word = all(isinstance(text, str) and WORD.fullmatch(text) for text in texts)
    is_known = params["boundary"] in BOUNDARIES and params["scenario"] in get_args(Scenario)
    return (
        dict(params)
        if is_whole and is_word and is_known and safe_name(params["task"], FOLDED) == params["task"]
        else {}
    )


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_SECONDS


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_WHOLE


def _facts(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says, by the names of a run's environment; what it does not say is None."""
    machine, commit = _part(content, "machine_info"), _part(content, "commit_info")
    cpu = _part(machine, "cpu")
    began = started({"environment": {"started_utc": content.get("datetime")}})
    if began is None:
        raise HarnessError(f"it does not say when it was made: its datetime is none; {HOW}")
    system, release = _text(machine.get("system")), _text(machine.get("release"))
    changed = "+changes" if commit.get("dirty") is True else ""
    name = _text(commit.get("id"))
    count = cpu.get("count")
    tool, _, version = str(_text(content.get("version"))).rpartition(" ")
    return {
        "started_utc": began.isoformat(timespec="seconds"),
        "commit": None if name in (None, "unversioned", UNKNOWN) else f"{name}{changed}",
        "python": _text(machine.get("python_version")),
        "python_implementation": _text(machine.get("python_implementation")),
        "os": "-".join(filter(None, (system, release))) or None,
        "machine": _text(machine.get("machine")),
        "cpu_model": _text(cpu.get("brand_raw")) or _text(cpu.get("brand")),
        "cpu_logical_count": count if _is_count(count) else None,
        "versions": {tool or TOOL: version} if version != "None" else {},
    }


def _part(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str | None:
    return printable(value, MOST_REASON) if isinstance(value, str) and value else None
