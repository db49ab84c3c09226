"""What commands have in common on their command lines: options, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.contract import HarnessError
from harness.formats import BUILT_IN

MOST_CORES = 65_536


def names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    """A list with commas; None where the option was not given."""
    return [name.strip() for name in value.split(",") if name.strip()] if value is not None else None


def listed(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[str]:
    """What lists with commas name, of an option that may be repeated; each once."""
    found = list(dict.fromkeys(name for value in values for name in names(ctx, parameter, value) or ()))
    if values and not found:
        raise HarnessError(f"{parameter.opts[0]}: it names nothing; write {parameter.opts[0]} NAME")
    return found


def interpreters(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str] | None:
    """Interpreters by name, from NAME=PATH."""
    found: dict[str, str] = {}
    for value in values:
        name, equals, path = value.partition("=")
        if not (name and equals and path):
            raise HarnessError(f"--python {value}: write NAME=PATH, such as --python old=/venvs/old/bin/python")
        if name in found:
            raise HarnessError(f"--python {name} is given twice; names must differ")
        found[name] = path
    return found or None


def cores(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Numbers of cores, from 0,2-3; None where the option was not given."""
    if value is None:
        return None
    found: list[int] = []
    for part in value.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not (first.isascii() and first.isdecimal() and (not dash or (last.isascii() and last.isdecimal()))):
            raise HarnessError(f"--cpus {value}: write numbers of cores, such as --cpus 0,2-3")
        if int(last or first) < int(first):
            raise HarnessError(f"--cpus {value}: {part.strip()} goes backwards; write {last}-{first}")
        if int(last or first) - int(first) > MOST_CORES:
            raise HarnessError(f"--cpus {value}: that is more cores than any machine has")
        found += range(int(first), int(last or first) + 1)
    return found


def swept(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, list[int | str]] | None:
    """The lists of a sweep by key, from KEY=A,B; whole numbers become integers."""
    found: dict[str, list[int | str]] = {}
    for value in values:
        name, equals, points = value.partition("=")
        key = name.strip().replace("-", "_")
        if not (key and equals and points.strip()):
            raise HarnessError(f"--sweep {value}: write KEY=A,B, such as --sweep batch=1,8,32")
        if key in found:
            raise HarnessError(f"--sweep {name} is given twice; give all its points at once")
        words = [point.strip() for point in points.split(",")]
        found[key] = [int(word) if word.isascii() and word.isdecimal() else word for word in words]
    return found or None


choose_plugins = click.option(
    "--plugins",
    callback=names,
    envvar="HARNESS_PLUGINS",
    metavar="A,B",
    help="Load these plugins and import nothing of any other. [env: HARNESS_PLUGINS]",
)
choose_data_dir = click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="HARNESS_DATA_DIR",
    help="Folder of data sets, a sub-folder each. [env: HARNESS_DATA_DIR]",
)
choose_file = click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write it: FILE.html as a page, else as Markdown.",
)
choose_summary = click.option(
    "--summary",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.md",
    help="Also add it to the end of this file as Markdown, for the page of a job.",
)
choose_wide = click.option("--wide", is_flag=True, help="Print every column, however wide the terminal is.")
choose_formats = click.option(
    "--format",
    "formats",
    multiple=True,
    callback=listed,
    metavar="A,B",
    help=f"Write the tables in these formats and nothing else: {', '.join(BUILT_IN)}, or what a plugin gives.",
)
choose_model = click.option(
    "--model",
    metavar="MODULE:ATTRIBUTE",
    help="A layer of your own, in the current folder or installed: what builds it, or the layer itself. It is held "
    "against itself in float64 and goes to every runtime that accepts it; without --models and SUITE, alone.",
)
choose_weights = click.option(
    "--weights",
    metavar="FILE",
    help="Its weights, a safetensors file with the layer's own names: what is checked and timed. With head.weight and "
    "head.bias it is scored as it is, and never trained.",
)
SUITE_OPTIONS = (
    click.option(
        "--models",
        callback=names,
        metavar="A,B",
        help="Models to run; names or patterns such as 'hand-*' or '!hand-*'.",
    ),
    choose_model,
    choose_weights,
    click.option("--runtimes", callback=names, metavar="A,B", help="Runtimes to run them on."),
    click.option("--tasks", callback=names, metavar="A,B", help="Tasks to run them on."),
    click.option("--baselines", callback=names, metavar="A@B", help="Variants that others are compared with."),
    click.option(
        "--scenarios", callback=names, metavar="A,B", help="What latency is measured of, such as single-stream."
    ),
    click.option(
        "--loads", callback=names, metavar="A,B", help="Under which loads it is looked how much a variant sustains."
    ),
    click.option("--device", help="cpu, or an accelerator such as cuda."),
    click.option("--dtype", help="float32 or float64."),
    click.option("--threads", type=int, help="Threads a call may use."),
    click.option("--cpus", callback=cores, metavar="0,2-3", help="The only cores that workers may use."),
    click.option("--hidden-size", type=int, help="Of every layer, in place of the tasks' own."),
    click.option("--num-layers", type=int, help="Likewise."),
    click.option("--seeds", type=int, help="Trainings per variant and task; 0 leaves accuracy out."),
    click.option(
        "--cold-cache",
        is_flag=True,
        default=None,
        help="Empty the caches before every timed call, of the processor or of the device.",
    ),
    click.option(
        "--precision",
        type=float,
        help="Stop at a planned look when half of every compute ratio's interval is at most this (0.01 is 1 %); "
        "to measure longer, give --max-slices too.",
    ),
    click.option("--slices", type=int, help="Slices at least; each gives every runtime a fresh process."),
    click.option("--max-slices", type=int, help="Slices at most."),
    click.option(
        "--budget", "budget_seconds", type=float, help="No slice of a task's latency begins after so many seconds."
    ),
    click.option(
        "--python",
        "pythons",
        multiple=True,
        callback=interpreters,
        metavar="NAME=PATH",
        help="Measure every variant in this interpreter; repeat it, and they are interleaved and compared with the "
        "first.",
    ),
    click.option(
        "--sweep",
        multiple=True,
        callback=swept,
        metavar="KEY=A,B",
        help="Measure over a grid: batch, time, hidden-size, num-layers, dtype or threads; repeat it for more of them.",
    ),
    click.option("--most-trials", type=int, help="Refuse a plan of more trials."),
    choose_data_dir,
    click.option("--trial-seconds", type=float, help="A worker that takes longer over one step of a trial is ended."),
    click.option("--worker-memory-gib", type=float, help="So is one that holds more memory, with all it started."),
    click.option("--worker-output-mib", type=float, help="And one that prints more."),
)


def choose_rows(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which rows are shown."""
    what = "Rows to show; names or patterns such as 'hand-*' or '!hand-*'."
    variants = click.option("--variants", callback=names, metavar="A,B", help=what)
    return variants(
        click.option("--scenarios", callback=names, metavar="A,B", help="Likewise, such as single-stream.")(command)
    )


def override_suite(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say what of a suite is run, and how."""
    for option in reversed(SUITE_OPTIONS):
        command = option(command)
    return command
