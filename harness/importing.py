"""What `harness import` does: a file of pytest-benchmark's becomes a run's folder.

Source: what pytest-benchmark 5.3 writes with `--benchmark-json`, and with `--benchmark-autosave --benchmark-save-data`.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness.contract import MOST_REASON, NAME, HarnessError, printable
from harness.journal import read_json
from harness.report import write_report
from harness.schema import LARGEST_WHOLE, TRIAL_COLUMNS, UNKNOWN
from harness.store import RunFolder, started
from harness.terminal import print_lines, print_summary

TOOL = "pytest-benchmark"
RUNTIME = "pytest"  # what stands behind the @ of a variant whose name has none
UNCHECKED = f"imported from {TOOL}, which does not check what is computed"
HOW = "write it with pytest --benchmark-json FILE"
MOST_SECONDS = 1e9  # of one call; some 30 years
MOST_NAME = 64  # characters of a model's name, as the contract has it
FOLDED = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
NAMED = re.compile(r"([A-Za-z0-9][\w.]*)(?:\[([\w.-]+)\])?", re.ASCII)
VARIANT = re.compile(rf"({NAME})@({NAME})(?:\[({NAME})\])?")
LIMITS = (
    f"Parity is unknown: {TOOL} does not check what is computed.",
    "Intervals are unknown: the file does not say which calls shared a process.",
)
MEANS = "Percentiles are unknown where a value of the file is the mean of several calls."
EXPORTED = (
    "This is an export of rnn-harness: scenarios, sizes and processes are not read from it, and estimates differ; the "
    "run itself has them."
)
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
    """

    fullname: str
    task: str
    variant: str
    model: str
    runtime: str
    python: str | None
    iterations: int
    data: list[float]


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
        return [*LIMITS, *([MEANS] if has_means else []), *([EXPORTED] if is_export else [])]


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
    seen: dict[tuple[str, str], str] = {}
    files: dict[str, str] = {}
    for own in benchmarks:
        place = own.fullname.partition("::")[0]
        if own.task != UNKNOWN and files.setdefault(own.task, place) != place:
            names = f"'{printable(files[own.task])}' and '{printable(place)}'"
            raise HarnessError(f"{names} would both be the task {own.task}; rename one")
        if other := seen.get((own.task, own.variant)):
            names = f"'{printable(other)}' and '{printable(own.fullname)}'"
            raise HarnessError(f"{names} would both be {own.variant} on {own.task}; rename one")
        seen[own.task, own.variant] = own.fullname
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
    trials: list[dict[str, Any]] = []
    samples: list[list[Any]] = []
    sources: dict[str, Any] = {}
    header = {"environment": {**found.facts, "command": list(command)}}
    moment = started(header)
    at = f"{moment.timestamp():.6f}" if moment else "0"
    for turn, own in enumerate(found.benchmarks):
        trials.append(_trial(f"{2 * turn + 1:04d}-parity", "parity", own))
        trial = f"{2 * turn + 2:04d}-latency"
        trials.append(_trial(trial, "latency", own, scenario="single-stream"))
        sources[trial] = {"fullname": own.fullname, "iterations": own.iterations}
        calls = enumerate(own.data, start=1)  # a call 0 would not count
        samples += [[trial, *AT.values(), "compute", 0, turn, call, at, elapsed, ""] for call, elapsed in calls]
    rest = {"name": name, "suite": {}, "baselines": {}, "floors": [], "plugins": []}
    run = RunFolder(folder, {**rest, **header, "trials": trials, "imported": {"from": TOOL, "benchmarks": sources}})
    with contextlib.closing(run):
        run.append_process({"slice": AT["slice"], "process": AT["process"]}, samples=samples)
        for trial_row in trials:
            is_timed = trial_row["kind"] == "latency"
            end = {"status": "ok", "reason": ""} if is_timed else {"status": "skipped", "reason": UNCHECKED}
            run.append({"trial": trial_row["trial"], **end})


def _trial(name: str, kind: str, own: Benchmark, **more: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TRIAL_COLUMNS[:-3])
    row |= {"trial": name, "kind": kind, "variant": own.variant, "model": own.model, "runtime": own.runtime}
    row |= {"python": own.python, "task": own.task, "twin": 0}
    return row | dict.fromkeys(("architecture", "device", "dtype", "compute_dtype"), UNKNOWN) | more


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
    if known := VARIANT.fullmatch(name):
        parts = name, known[1], known[2], known[3]
    else:
        model = safe_name(name)
        parts = f"{model}@{RUNTIME}", model, RUNTIME, None
    return Benchmark(fullname, task, *parts, iterations, [float(value) for value in data])


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
