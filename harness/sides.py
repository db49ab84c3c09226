"""What is compared of a run: what it timed, how long that took, and the facts that could explain it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import estimates
from harness.capacity import UNITS, Limits, limits_by_trial
from harness.contract import HarnessError, one_line
from harness.formatting import NONE, joined, on_device, plain, sizes, threads, three_digits
from harness.samples import SAMPLE_COLUMNS
from harness.store import Run, load, started
from harness.suite import Server, Stream
from harness.tables import BOUNDARIES, Of, instance_medians, records, sampling, settings_of

OK = "ok"
NOT_THERE = "not in it"
LOAD = "load"  # where the boundary of a latency stands
MUST_AGREE = (
    *("machine", "os family", "hypervisor", "python_implementation", "cpu_model", "cpu_logical_count", "accelerators"),
    *("cpu_physical_count", "cpu_usable_count", "cpu_governor", "cpu_max_frequency_khz", "cpu_boost"),
)
MAY_CHANGE = ("os", "memory_bytes", "python", "commit")  # beside the versions and how latency is sampled

Medians = Mapping[estimates.Key, float]
Trial = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """What is timed: two are compared if all of it is equal. A file of samples knows its name and boundaries alone."""

    variant: str
    task: str | None
    device: str | None
    dtype: str | None
    threads: int | None
    input_size: int | None
    hidden_size: int | None
    num_layers: int | None
    scenario: str | None
    batch: int | None
    time: int | None
    caches: str | None = None
    boundary: str = ""

    @property
    def shape(self) -> str:
        """The scenario with batch and time: `offline 32×8`, and `cold caches` where they are emptied."""
        known = [str(value) for value in (self.batch, self.time) if value is not None]
        return joined(self.scenario, "×".join(known), self.caches and f"{self.caches} caches", by=" ") or "samples"

    @property
    def setting(self) -> str:
        """What the rows of one printed table have in common."""
        size = sizes(I=self.input_size, H=self.hidden_size, L=self.num_layers)
        calls = f"{count} a call" if (count := threads(self.threads)) else ""
        where = self.task and on_device(self.task, self.device or "")
        return joined(joined(where, where and joined(size, self.dtype, calls), by=": "), self.boundary)

    def __str__(self) -> str:
        return joined(self.variant, self.shape, self.setting)


@dataclass(frozen=True, slots=True)
class Load:
    """A load trial of a run.

    Attributes:
        trial: its row, with how it ended.
        limits: what its workers found, as requests a second or streams.
        terms: what must be the same in two trials whose limits are compared, in words.
        settings: how loads were offered, as the suite's keys; those beside the terms may differ.
    """

    trial: Trial
    limits: Limits
    terms: str
    settings: Mapping[str, Any]

    @property
    def end(self) -> str:
        """How it ended: `ok`, or why there is no capacity to compare."""
        own, unit = self.limits, UNITS[self.trial["scenario"]]
        if self.trial["status"] != OK:
            return end_of(self.trial)
        if not own.by_slice:
            return "no worker found its limit"
        if own.none_sustained:
            workers = f"{own.none_sustained} of {len(own.by_slice)} workers"
            return f"{workers} sustained nothing, down to {three_digits(own.refuted)} {unit}"
        if own.is_open:
            return f"at least {three_digits(math.exp(own.mean.mean))} {unit}"
        return OK

    @property
    def is_late(self) -> bool:
        """Was the generator late in every worker, so that nothing is known of what was served?"""
        return self.trial["status"] == "failed" and str(self.trial["reason"]).startswith(estimates.GENERATOR_LATE)

    @property
    def served(self) -> bool:
        """Did it carry something, as far as that is known?"""
        carries = self.trial["status"] == OK and any(limit.sustained for limit in self.limits.by_slice.values())
        return carries or self.is_late


@dataclass(frozen=True)
class Side:
    """What is compared of a run; all else of it may be let go.

    Attributes:
        path: the run's folder, or a file of samples.
        started: when it began, in UTC; None if that is not known.
        has_environment: a file of samples has none.
        agreeing, changing: facts that two runs must share, and those in which they may differ.
        tolerance: within which ratios are the same.
        trials: its latency trials, by what they time.
        medians: of instances, in seconds, by trial and boundary.
        canaries: rows with `task`, `runtime`, `slice` and `canary_s`.
        loads: its load trials, by what they offer them to.
    """

    path: Path
    started: datetime | None
    has_environment: bool
    agreeing: Mapping[str, Any]
    changing: Mapping[str, Any]
    tolerance: float
    trials: Mapping[Point, Trial]
    medians: Mapping[Of, Medians]
    canaries: tuple[Trial, ...] = field(repr=False)
    loads: Mapping[Point, Load] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not the same in both: a fact, or a row that is not `ok` on both sides.

    Attributes:
        what: the fact or the row.
        base, new: what each side says of it.
        outcome: what a gate makes of a row, where it does not follow from what the sides say.
    """

    what: str
    base: str
    new: str
    outcome: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.base} | {self.new}"


def side_of(run: Run) -> Side:
    """What is compared of a run, or of a file of samples.

    Raises:
        HarnessError: the run does not say how its latency was sampled.
    """
    names = ("task", "runtime", "slice", "canary_s")
    canaries = tuple({n: row[n] for n in names} for row in records(run.processes) if row["canary_s"] > 0)
    known = run.path, started(run.header), bool(run.environment), *_facts(run), sampling(run).tolerance
    return Side(*known, _trials(run), instance_medians(run.samples), canaries, _loads(run))


def load_side(path: str | Path) -> Run:
    """A run's folder, or a CSV file with the columns of the samples table (without `trial`) as a run of one row.

    Raises:
        HarnessError: it is neither, or is damaged.
    """
    path = Path(path)
    if not os.path.isfile(path):  # for which a name that is too long is no file either
        return load(path)
    columns = SAMPLE_COLUMNS[1:]
    numbers = [name for name in columns if name not in ("boundary", "disturbed")]  # the mark may be unknown
    try:
        frame = pd.read_csv(path, low_memory=False)
        if sorted(map(str, frame.columns)) != sorted(columns):
            raise HarnessError("it has other columns")
        values = frame[numbers].astype("float64")
        finite = bool(np.isfinite(values.to_numpy()).all()) and set(frame["boundary"]) <= set(BOUNDARIES)
        if not (finite and (values["elapsed_s"] > 0).all() and (values["call"] > 0).any()):
            raise HarnessError("a value is not what it should be")
    except (OSError, ValueError, HarnessError) as error:  # a parser's own errors are ValueErrors
        expected = f"expected is CSV, a timed call a row, its columns {', '.join(columns)}; boundary is compute or "
        expected += "end-to-end, elapsed_s is above 0, and the calls 0 do not count"
        raise HarnessError(plain(f"'{path}' is not a file of samples: {one_line(error)}; {expected}")) from error
    frame[numbers] = values
    trial = dict.fromkeys((field.name for field in fields(Point)), None) | {"variant": path.stem, "trial": path.stem}
    trial |= {"kind": "latency", "status": OK, "reason": ""}
    tables: dict[str, Any] = {field.name: pd.DataFrame() for field in fields(Run) if field.default is MISSING}
    tables |= {"path": path, "header": {"name": path.stem, "environment": {}, "baselines": {}}}
    tables |= {"trials": pd.DataFrame([trial]), "samples": frame.assign(trial=path.stem)[SAMPLE_COLUMNS]}
    return Run(**tables)


def end_of(trial: Trial) -> str:
    """How a trial ended, with its reason."""
    return f"{trial['status']}: {trial['reason']}".removesuffix(": ")


def _trials(run: Run, kind: str = "latency", boundary: str = "") -> dict[Point, Trial]:
    names = [field.name for field in fields(Point) if field.name != "boundary"]
    floors = run.header.get("floors", [])  # they compute nothing, so there is nothing to compare
    timed = [t for t in records(run.trials) if t["kind"] == kind and t.get("architecture") not in floors]
    told: list[dict[str, Any]] = [{name: None if pd.isna(t[name]) else t[name] for name in names} for t in timed]
    return {Point(**values, boundary=boundary): trial for values, trial in zip(told, timed, strict=True)}


def _loads(run: Run) -> dict[Point, Load]:
    trials = {p: trial for p, trial in _trials(run, LOAD, LOAD).items() if p.scenario in UNITS}
    if not trials:
        return {}
    limits = limits_by_trial(run)
    server, stream = settings_of(run, "server", Server), settings_of(run, "stream", Stream)
    rest = {
        "server": f"a wait of {1000 * server.window_seconds:.9g} ms for others",
        "stream": f"{100 * stream.miss_share:.9g} % may be late",
    }
    kept = {"server": server.model_dump(), "stream": stream.model_dump()}
    found = {}
    for point, trial in trials.items():
        own, scenario = limits[trial["trial"]], trial["scenario"]
        settings = {f"{scenario}.{name}": value for name, value in kept[scenario].items()}
        found[point] = Load(trial, own, f"a bound of {1000 * own.bound_s:.9g} ms, {rest[scenario]}", settings)
    return found


def _facts(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """What two runs must share, and what they may differ in: software, and how latency was sampled."""
    facts = run.environment | {"os family": (run.environment.get("os") or "").split("-")[0] or None}  # `Linux`
    changing = software(facts) | {f"latency.{name}": value for name, value in sampling(run).model_dump().items()}
    inner = {f"{w} in {p}": v for p, told in run.header.get("pythons", {}).items() for w, v in software(told).items()}
    devices = {row["device_name"] for row in records(run.processes) if isinstance(row.get("device_name"), str)}
    agreeing = {name: facts.get(name) for name in MUST_AGREE} | {"device": ", ".join(sorted(devices)) or None}
    agreeing["clock"] = "device" if any(row.get("clock") == "device" for row in records(run.processes)) else "host"
    return agreeing, changing | inner


def software(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of an environment's facts those in which two sides may differ: versions, commits, system and memory."""
    versions = {f"version of {name}": version for name, version in facts.get("versions", {}).items()}
    commits = {f"commit of {name}": commit for name, commit in facts.get("commits", {}).items()}
    return {name: facts.get(name) for name in MAY_CHANGE} | versions | commits


def differing(base: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Difference, ...]:
    """The facts that are not the same in both; one that a side lacks is unknown there."""

    def said(value: Any) -> str:
        text = (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
        return NONE if value is None else text

    names = [name for name in {**base, **new} if base.get(name) != new.get(name)]
    return tuple(Difference(name, said(base.get(name)), said(new.get(name))) for name in names)
