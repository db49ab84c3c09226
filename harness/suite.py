"""Suite files: what to run, in TOML, checked against a schema. A mistake is named with its key and line."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contract import NAME, HarnessError
from harness.suites import builtin_suites, builtin_text

Scenario = Literal["single-stream", "offline", "training-step", "padded", "bucketed", "packed", "stream"]
LoadScenario = Literal["server", "stream"]
Name = Annotated[
    str, Field(pattern=r"^!?[A-Za-z0-9*?][A-Za-z0-9*?._-]{0,63}$")
]  # names are lower case; others get a hint
Interpreter = Annotated[str, Field(min_length=1, pattern=r"^[^\x00-\x1f\x7f]+$")]  # a path
DEFAULT_SUITE = "quick"
MAX_SUITE_BYTES = 1_000_000
MOST_DOTS = 100  # of a line; tomllib's memory grows with the square of the parts of a key
FEWEST_BOUNDS = 20  # a probe lasts so many bounds: who is overloaded by 5 % is late by one bound after so long
CONFIRMED_TIMES = 5  # as long as a probe of the search lasts one that confirms what it found
OPTIONS = {"budget_seconds": "budget", "pythons": "python"}  # keys whose option of the command has another name


class Section(BaseModel):
    """A table of a suite file: unknown keys are refused, values are not converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Layer(Section):
    """The layer's size; left out, the task's recipe decides."""

    hidden_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    num_layers: Annotated[int, Field(ge=1, le=64)] | None = None


class Latency(Section):
    """How latency is sampled.

    Attributes:
        scenarios: which; an empty list measures no latency.
        offline_batch: rows of an offline call, and of a batch of rows of real lengths.
        slices: how many slices are measured at least; each gives every runtime one freshly started process.
        max_slices: how many at most; left out, as many as `slices`. After `slices`, twice as many and so on it is
            looked whether every interval of interest is narrow enough.
        instances: sessions of a variant a process, opened one after the other.
        calls: at most this many samples of a variant, scenario and boundary in one instance.
        seconds: an instance stops after about this much measured time (10 samples are always taken).
        precision: measuring ends when the half of every ratio's interval is at most this share of the ratio.
        budget_seconds: no slice of a task begins after this long; in a sweep, of one of its settings.
        tolerance: latencies whose ratio is surely within this share of 1 are called the same.
        cold_cache: whether the caches are emptied before every call.
        twins: how often the baseline is opened once more and measured as if it were another variant.
    """

    scenarios: list[Scenario] = ["single-stream", "offline", "training-step"]
    offline_batch: Annotated[int, Field(ge=1, le=1_000_000)] = 32
    slices: Annotated[int, Field(ge=2, le=1000)] = 5
    max_slices: Annotated[int, Field(ge=2, le=1000)] | None = None
    instances: Annotated[int, Field(ge=1, le=1000)] = 4
    calls: Annotated[int, Field(ge=10, le=1_000_000)] = 35
    seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 0.25
    precision: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.01
    budget_seconds: Annotated[float, Field(gt=0, le=604_800, strict=False)] = 600.0
    tolerance: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.01
    twins: Annotated[int, Field(ge=0, le=20)] = 1
    cold_cache: bool = False

    @property
    def most_slices(self) -> int:
        """How many slices are measured at most; never fewer than at least."""
        return max(self.slices, self.max_slices or 0)


class Sweep(Section):
    """A grid: each list takes the place of one value, and every combination is a setting or a shape of its own.

    Attributes:
        batch, time: shapes at which latency is measured: `offline` at every batch and time, `single-stream` at every
            time, rows of real lengths at every batch. Training steps keep the task's.
        hidden_size, num_layers, dtype, threads: settings, in each of which every variant is checked and timed. Accuracy
            is trained in the first.
    """

    batch: list[Annotated[int, Field(ge=1, le=1_000_000)]] = []
    time: list[Annotated[int, Field(ge=1, le=1_000_000)]] = []
    hidden_size: list[Annotated[int, Field(ge=1, le=65536)]] = []
    num_layers: list[Annotated[int, Field(ge=1, le=64)]] = []
    dtype: list[Literal["float32", "float64"]] = []
    threads: list[Annotated[int, Field(ge=1, le=1024)]] = []


class Stream(Section):
    """Audio, say, that comes in chunks.

    Attributes:
        chunk_steps: steps of a chunk; T of a call.
        step_seconds: how much time a step stands for.
        seconds: how long streams are served in a probe, at least; it is 20 chunks in any case.
        miss_share: of chunks that may take longer than until the next chunk's arrival.
        precision: the search ends when no higher number within this share is left to try.
    """

    chunk_steps: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    step_seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 0.01
    seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 2.0
    miss_share: Annotated[float, Field(ge=0, lt=1, strict=False)] = 0.01
    precision: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.05

    @property
    def period_s(self) -> float:
        """From one chunk of a stream to the next, in seconds; the deadline of each."""
        return self.chunk_steps * self.step_seconds

    @property
    def chunks(self) -> int:
        """Chunks of each stream in a probe."""
        return max(FEWEST_BOUNDS, math.ceil(self.seconds / self.period_s))

    @property
    def probe_seconds(self) -> float:
        """How long a probe takes that is sustained."""
        return self.chunks * self.period_s


class Server(Section):
    """Single requests that come at random.

    Attributes:
        p99_seconds: what the 99th percentile of latencies, from the arrival, is to stay under.
        seconds: how long requests arrive in a probe, at least.
        most_seconds: and at most in the search, but 20 bounds in any case. As 662 requests are needed, rates below 662
            in so long are not tried.
        window_seconds: how long a request may wait for others to be served with it.
        most_batch: requests a call at most.
        precision: the search ends when the lowest rate that was not sustained is this share above one that was.
    """

    p99_seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 0.05
    seconds: Annotated[float, Field(gt=0, le=3600, strict=False)] = 2.0
    most_seconds: Annotated[float, Field(gt=0, le=86_400, strict=False)] = 120.0
    window_seconds: Annotated[float, Field(ge=0, le=3600, strict=False)] = 0.0
    most_batch: Annotated[int, Field(ge=1, le=4096)] = 1
    precision: Annotated[float, Field(gt=0, lt=1, strict=False)] = 0.05

    @property
    def probe_seconds(self) -> float:
        """How long requests arrive in a probe; longer where fewer than 662 would come."""
        return max(min(self.seconds, self.most_seconds), FEWEST_BOUNDS * self.p99_seconds)

    @property
    def confirmation_seconds(self) -> float:
        """How long requests arrive in a probe that confirms the limit; longer where fewer than 828 would come."""
        return CONFIRMED_TIMES * self.probe_seconds


class Suite(Section):
    """What to run.

    Attributes:
        description: one line.
        models, runtimes, tasks: names or patterns (`*`, `hand-*`); with `!` before it, what is left out.
        device, dtype, threads: where and how every variant runs.
        cpus: the only cores that workers may use, by the system's numbers; left out, all that the command may.
        seeds: how many trainings a variant gets on each task; 0 leaves accuracy out.
        baselines: variants that others are compared with; a row is compared with the first of its own architecture.
            Where the run has none of them, it is the architecture's yardstick, or else its first variant in the plan.
        layer: overrides of the recipes' sizes.
        latency: how latency is sampled.
        sweep: a grid of shapes, sizes, dtypes and threads in place of one of each.
        most_trials: a plan of more trials is refused.
        loads: in which open-loop scenarios the highest load is looked for.
        stream, server: what these are like.
        trial_seconds: a worker that takes longer over one step of a trial is ended with all it started.
        worker_memory_gib: so is one that holds more memory, what it started included; in GiB (2**30 bytes).
        worker_output_mib: and one that prints more than this; in MiB (2**20 bytes).
        pythons: interpreters by name; every variant is measured in each of them, interleaved, and compared with
            itself in the first. Each must have this version of the harness. Left out, there is one.
    """

    description: str = ""
    models: list[Name] = ["*"]
    runtimes: list[Name] = ["*"]
    tasks: list[Name] = ["*"]
    device: Annotated[str, Field(pattern=r"^[a-z]+(:[0-9]+)?$")] = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    cpus: list[Annotated[int, Field(ge=0, le=65_535)]] = []
    seeds: Annotated[int, Field(ge=0, le=1000)] = 3
    baselines: list[Annotated[str, Field(pattern=f"^{NAME}@{NAME}$")]] = []
    layer: Layer = Layer()
    latency: Latency = Latency()
    sweep: Sweep = Sweep()
    most_trials: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    loads: list[LoadScenario] = []
    stream: Stream = Stream()
    server: Server = Server()
    trial_seconds: Annotated[float, Field(gt=0, le=604_800, strict=False)] = 3600.0
    worker_memory_gib: Annotated[float, Field(gt=0, le=65_536, strict=False)] = 8.0
    worker_output_mib: Annotated[float, Field(gt=0, le=65_536, strict=False)] = 16.0
    pythons: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Interpreter] = {}


def read_suite(name_or_path: str) -> tuple[str, Suite]:
    """The suite of that name or in that file, with its short name.

    Raises:
        HarnessError: no such suite, not TOML, or a wrong key or value; one line each.
    """
    if name_or_path in builtin_suites():
        return name_or_path, parse_suite(builtin_text(name_or_path), f"built-in suite '{name_or_path}'")
    path = Path(name_or_path)
    if not path.name.endswith(".toml"):
        near = difflib.get_close_matches(name_or_path, builtin_suites(), n=1)
        hint = (
            f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(builtin_suites())}, or give a .toml file"
        )
        raise HarnessError(f"no suite is called {name_or_path!r}; {hint}")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(
            f"suite '{_printable(str(path))}' cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    if len(data) > MAX_SUITE_BYTES:
        raise HarnessError(f"suite '{path}' has {len(data)} bytes; a suite has at most {MAX_SUITE_BYTES}")
    return path.name.removesuffix(".toml"), parse_suite(text, f"suite '{path}'")


def parse_suite(text: str, origin: str) -> Suite:
    """Parse and check a suite's text; `origin` begins every error.

    Raises:
        HarnessError: not TOML, or wrong keys or values. The first is named with its line and what is allowed.
    """
    if any(line.count(".") > MOST_DOTS and not line.lstrip().startswith("#") for line in text.split("\n")):
        raise HarnessError(f"{origin} is nested too deeply: a line has more than {MOST_DOTS} dots")
    try:
        return Suite.model_validate(tomllib.loads(text))
    except RecursionError as error:
        raise HarnessError(f"{origin} is nested too deeply") from error
    except ValidationError as error:
        problems = error.errors()
        first = _explain(problems[0], text)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise HarnessError(f"{origin}, {first}{more}") from error
    except ValueError as error:  # tomllib's own, and Python's for numbers of thousands of digits
        raise HarnessError(f"{origin} is not valid TOML: {_printable(str(error))}") from error


def parse_suite_table(table: Any, origin: str) -> Suite:
    """Check a suite that was stored as a table, as `run.json` has it.

    Raises:
        HarnessError: wrong keys or values; the first is named.
    """
    try:
        return Suite.model_validate(table)
    except ValidationError as error:
        problem = error.errors()[0]
        key = _printable(".".join(str(part) for part in problem["loc"]))
        raise HarnessError(f"{origin}: '{key}': {_sentence(problem)}") from error


def override(suite: Suite, **changes: Any) -> Suite:
    """A copy with the given keys, those of `[layer]` and `[latency]` too, changed and checked again.

    A key given as None stays. `sweep` takes a table of its own; another key given takes the place of its list there.

    Raises:
        HarnessError: a value is not allowed.
    """
    given = {key: value for key, value in changes.items() if value is not None}
    sections: dict[str, Any] = {}
    for name, section in (("layer", suite.layer), ("latency", suite.latency)):
        own = {key: given.pop(key) for key in list(given) if key in type(section).model_fields}
        sections[name] = section.model_dump() | own
    if both := [key for key in given.get("sweep", {}) if changes.get(key) is not None]:
        raise HarnessError(f"--{both[0].replace('_', '-')}: it is swept over too; leave one of them out")
    kept = {key: [] if changes.get(key) is not None else values for key, values in suite.sweep.model_dump().items()}
    sections["sweep"] = kept | given.pop("sweep", {})
    try:
        return Suite.model_validate({**suite.model_dump(), **sections, **given})
    except ValidationError as error:
        problem = error.errors()[0]
        key = str(problem["loc"][1 if problem["loc"][0] in sections and len(problem["loc"]) > 1 else 0])
        option = OPTIONS.get(key, key.replace("_", "-"))
        if problem["loc"][0] == "sweep":
            option = f"sweep {problem['loc'][1]}"
        if problem["type"] == "extra_forbidden":
            keys = ", ".join(Sweep.model_fields).replace("_", "-")
            raise HarnessError(f"--{option}: nothing of that name can be swept over; there are: {keys}") from error
        raise HarnessError(f"--{option}: {_sentence(problem)}") from error


def _explain(problem: Any, text: str) -> str:
    sections: dict[str, type[Section]] = {"layer": Layer, "latency": Latency, "sweep": Sweep}
    sections |= {"stream": Stream, "server": Server}
    keys = [str(part) for part in problem["loc"][: 2 if problem["loc"][0] in (*sections, "pythons") else 1]]
    key = _printable(".".join(keys))
    line = _line_of(text, keys)
    if problem["type"] == "extra_forbidden":
        section = sections[keys[0]] if len(keys) > 1 else Suite
        return f"line {line}: unknown key '{key}'; allowed here: {', '.join(section.model_fields)}"
    return f"line {line}: '{key}' is {reprlib.repr(problem['input'])}: {_sentence(problem)}"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)[1:-1]


def _sentence(problem: Any) -> str:
    message = str(problem["msg"])
    return message[0].lower() + message[1:]


def _line_of(text: str, keys: list[str]) -> int:
    """The line where a key of a (possibly nested) table stands, counted from 1; 1 if it cannot be told."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            table = header[1]
            if table == ".".join(keys):
                return number
        elif assignment := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            name = assignment[1].strip("\"'")
            if ".".join(part for part in (table, name) if part) == ".".join(keys) or (table, name) == ("", keys[0]):
                return number
    return _line_of(text, keys[:-1]) if len(keys) > 1 else 1
