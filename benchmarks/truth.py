"""Can the harness's timing be believed? Identical code against itself, planted slowdowns, and other tools beside it.

python benchmarks/truth.py all
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script from anywhere

from benchmarks import null, peers, recording, summary
from benchmarks.analysis import Process, processes_of
from benchmarks.workloads import COPIES, WORKLOADS
from harness.catalog import discover
from harness.environment import environment

COUNTS = {  # processes of each recording
    "numpy-quiet": 120,
    "numpy-bursty": 80,
    "torch-quiet": 100,
    "torch-bursty": 60,
    "numpy-quiet-pair": 60,
    "numpy-bursty-pair": 0,
    "torch-quiet-pair": 30,
    "torch-bursty-pair": 0,
}
SECONDS = {  # a process or a run, about, on the machine where this was written
    "numpy": 4.0,
    "numpy-pair": 0.5,
    "torch": 3.8,
    "torch-pair": 1.0,
    "pytest-benchmark": 1.8,
    "pyperf": 15.5,
    "null": 25.0,
}
STARTS = {"pytest-benchmark": 1, "pyperf": 21}  # processes that a tool starts for one arm
TORCH_START_SECONDS = 1.0
ROUNDS = 4  # of everything, so that all see the same hours
FACTS = ("started_utc", "commit", "python", "os", "cpu_model", "cpu_usable_count", "hypervisor", "versions")

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
OPTIONS: dict[str, Option] = {
    "out": click.option(
        *("--out", "out"), type=click.Path(path_type=Path), default=Path("results/truth"), show_default=True,
        help="Folder of the records and the summary.",
    ),
    "seed": click.option("--seed", default=1, show_default=True, help="Of all random orders and drawings."),
    "workload": click.option(
        "--workload", "workloads", multiple=True, type=click.Choice(["numpy", "torch"]),
        help="Only this workload; may be given twice.",
    ),
    "noise": click.option(
        "--noise", "noises", multiple=True, type=click.Choice(recording.NOISES),
        help="Only this noise; may be given twice.",
    ),
    "scale": click.option("--scale", default=1.0, show_default=True, help="Times the processes of every recording."),
    "count": click.option(
        "--count", "counts", multiple=True, metavar="RECORDING=N",
        help=f"Processes of one recording; default: {', '.join(f'{k}={n}' for k, n in COUNTS.items())}.",
    ),
    "copies": click.option("--copies", default=COPIES, show_default=True, help="Identical arms of an instance."),
    "pytest_runs": click.option(
        "--pytest-benchmark-runs", "pytest_runs", default=30, show_default=True, help="Runs of an arm."
    ),
    "pyperf_runs": click.option("--pyperf-runs", "pyperf_runs", default=5, show_default=True, help="Runs of an arm."),
    "resamples": click.option(
        "--resamples", default=400, show_default=True, help="Comparisons of resampled processes for each rate."
    ),
}  # fmt: skip


class Step:
    """Something to repeat until it has been done so often, some of which may have been done before.

    Attributes:
        name: names it in the progress.
        target: how often in all.
        each_s: about how long one takes, in seconds.
        advance: does what is missing to a number, and gives one value for each that it did.
    """

    def __init__(
        self, name: str, target: int, done: int, each_s: float, advance: Callable[[int], Iterator[float]]
    ) -> None:
        self.name, self.target, self.each_s, self.advance = name, target, each_s, advance
        self.left = max(0, target - done)


def options(*names: str) -> Option:
    """The options of these names, on a command."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


@click.group(help=__doc__)
def main() -> None:
    pass


@main.command("record")
@options("out", "seed", "workload", "noise", "scale", "count", "copies")
def record_command(out: Path, seed: int, **choice: Any) -> None:
    """Record processes of the engine's workers; goes on where it was stopped."""
    work(out, record_steps(out, seed, **choice), rounds=1)


@main.command("peers")
@options("out", "seed", "workload", "noise", "pytest_runs", "pyperf_runs")
def peers_command(
    out: Path, seed: int, workloads: tuple[str, ...], noises: tuple[str, ...], pytest_runs: int, pyperf_runs: int
) -> None:
    """Have other tools time the same calls: NumPy's, and on the quiet machine, unless told otherwise."""
    runs = {"pytest-benchmark": pytest_runs, "pyperf": pyperf_runs}
    work(out, peer_steps(out, seed, workloads or ("numpy",), noises or ("quiet",), runs), rounds=1)


@main.command("null")
@options("out", "seed")
def null_command(out: Path, seed: int) -> None:
    """Measure what nothing costs, through the engine and through other tools."""
    work(out, [null_step(out, seed)], rounds=1)


@main.command("analyse")
@options("out", "seed", "resamples")
def analyse_command(out: Path, seed: int, resamples: int) -> None:
    """Print the tables, as Markdown, and write them to summary.md."""
    write_summary(out, summary.Resampling(resamples, seed))


@main.command("all")
@options("out", "seed", "workload", "noise", "scale", "count", "copies", "pytest_runs", "pyperf_runs", "resamples")
def all_command(out: Path, seed: int, pytest_runs: int, pyperf_runs: int, resamples: int, **choice: Any) -> None:
    """Record everything, other tools in between, and analyse it."""
    runs = {"pytest-benchmark": pytest_runs, "pyperf": pyperf_runs}
    wanted = ("numpy" in (choice["workloads"] or ("numpy",))) and ("quiet" in (choice["noises"] or ("quiet",)))
    beside = peer_steps(out, seed, ("numpy",), ("quiet",), runs) if wanted else []
    work(out, [*record_steps(out, seed, **choice), *beside, null_step(out, seed)], ROUNDS)
    write_summary(out, summary.Resampling(resamples, seed))


# ------------------------------------------------------------------------------------------------------- steps


def record_steps(
    out: Path,
    seed: int,
    workloads: tuple[str, ...],
    noises: tuple[str, ...],
    scale: float,
    counts: tuple[str, ...],
    copies: int,
) -> list[Step]:
    """One step a recording that was chosen."""
    wanted = {name: math.ceil(number * scale) for name, number in COUNTS.items()} | dict(map(_count, counts))
    steps = []
    for name, each in recording.recordings(copies).items():
        if each.workload.name not in (workloads or WORKLOADS) or each.noise not in (noises or recording.NOISES):
            continue

        def advance(target: int, each: recording.Recording = each) -> Iterator[float]:
            return recording.record(each, records(out), target, seed)

        seconds = SECONDS[each.workload.name + (summary.PAIR if name.endswith(summary.PAIR) else "")]
        steps.append(Step(name, wanted[name], len(recording.recorded(each, records(out))), seconds, advance))
    return steps


def peer_steps(
    out: Path, seed: int, workloads: Iterable[str], noises: Iterable[str], runs: dict[str, int]
) -> list[Step]:
    """One step a tool that is installed, workload and noise; a line for a tool that is not."""
    steps = []
    for tool in peers.PACKAGES:
        if not peers.installed(tool):
            click.echo(f"{tool} is not installed and is left out; see benchmarks/README.md")
            continue
        for name, noise in ((name, noise) for name in workloads for noise in noises):

            def advance(target: int, tool: str = tool, name: str = name, noise: str = noise) -> Iterator[float]:
                return peers.record(records(out), tool, name, noise, target, seed)

            done = peers.rounds_done(records(out), tool, name, noise)
            extra = 0.0 if name == "numpy" else TORCH_START_SECONDS * STARTS[tool]
            seconds = len(peers.ARMS) * (SECONDS[tool] + extra)
            steps.append(Step(f"{tool} {name}-{noise}, all arms", runs[tool], done, seconds, advance))
    return steps


def null_step(out: Path, seed: int) -> Step:
    """What nothing costs, measured anew each time."""

    def advance(target: int) -> Iterator[float]:
        if target:
            found = [asdict(reading) for reading in null.readings(seed)]
            (out / "null.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            yield sum(reading["wall_s"] for reading in found)

    return Step("null", 1, 0, SECONDS["null"], advance)


def work(out: Path, steps: list[Step], rounds: int) -> None:
    """Do the steps, some of each every round, and say how long it will take and how far it is."""
    records(out).mkdir(parents=True, exist_ok=True)
    _write_environment(out)
    for step in steps:
        click.echo(f"{step.name}: {step.left} of {step.target} to do, about {step.left * step.each_s / 60:.1f} min")
    click.echo(f"about {sum(step.left * step.each_s for step in steps) / 60:.0f} min in all")
    for number in range(1, rounds + 1):
        for step in steps:
            taken = list(step.advance(step.target * number // rounds))
            if taken:
                click.echo(f"round {number} of {rounds}: {step.name}: {len(taken)} × {fmean(taken):.1f} s")


def write_summary(out: Path, resampling: summary.Resampling) -> None:
    """Print the summary, and write it."""
    text = analysed(out, resampling)
    (out / "summary.md").write_text(text, encoding="utf-8")
    click.echo(text)


def analysed(out: Path, resampling: summary.Resampling) -> str:
    """The summary of what is recorded in the folder.

    Raises:
        click.ClickException: nothing is.
    """
    recorded: dict[str, list[Process]] = {}
    for name, each in recording.recordings(COPIES).items():
        files = each.files(records(out))
        if all(file.exists() for file in files):
            recorded[name] = processes_of(*map(recording.read_rows, files))
    rates: dict[str, list[peers.PeerRates]] = {}
    for file in sorted(records(out).glob("peers-*.csv")):
        tool = next(tool for tool in peers.PACKAGES if file.stem.startswith(f"peers-{tool}-"))
        name = file.stem.removeprefix(f"peers-{tool}-")
        rates[name] = [*rates.get(name, []), *peers.rates(tool, peers.read_runs(file, tool))]
    nulls = []
    if (out / "null.json").exists():
        nulls = [null.NullReading(**found) for found in json.loads((out / "null.json").read_text(encoding="utf-8"))]
    if not (recorded or rates or nulls):
        raise click.ClickException(f"nothing is recorded in '{out}'; begin with: {summary.SCRIPT} record")
    return summary.summary(recorded, rates, nulls, _facts(out), resampling)


def records(out: Path) -> Path:
    """The folder of the tables."""
    return out / "records"


def _count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in COUNTS or not number.isdigit():
        raise click.BadParameter(f"'{text}' is not RECORDING=N; recordings are {', '.join(COUNTS)}")
    return name, int(number)


def _write_environment(out: Path) -> None:
    """One entry a command, so that records of several hours or machines can be told apart."""
    file = out / "environment.json"
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    plugins = [plugin.distribution for plugin in discover().plugins]
    entries.append(environment([*plugins, *peers.PACKAGES], sys.argv))
    file.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def _facts(out: Path) -> list[str]:
    file = out / "environment.json"
    entries = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    found = []
    for name in FACTS if entries else ():
        values = list(dict.fromkeys(_plain(entry[name]) for entry in entries))
        found.append(f"- {name}: {'; '.join(values)}")
    return found


def _plain(value: Any) -> str:
    return ", ".join(f"{name} {text}" for name, text in value.items()) if isinstance(value, dict) else str(value)


if __name__ == "__main__":
    main()
