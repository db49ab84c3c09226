"""The command line. What is slow to import is imported by the command that needs it."""

from __future__ import annotations

import contextlib
import errno
import re
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.catalog import KINDS, OF_A_RUN, installed_plugins
from harness.contract import HarnessError, one_line
from harness.ending import drop_what_cannot_be_written, ended_by_signals
from harness.journal import StoreError
from harness.notices import say
from harness.options import (
    choose_data_dir,
    choose_file,
    choose_formats,
    choose_model,
    choose_plugins,
    choose_rows,
    choose_summary,
    choose_weights,
    choose_wide,
    names,
    override_suite,
)

if TYPE_CHECKING:
    from harness.own_model import OwnModel

EXIT_CODES = """\b
Exit codes:
  0  every row is ok (or unsupported, or skipped for want of something to train it)
  1  some rows are wrong, failed, crashed, timed out or out of memory; all others are there
  2  nothing ran: bad input, or no row that could be tried
  70  a bug of the harness itself
  74  the results cannot be written any more; finished trials are kept
  130, 143, 129  ended by Ctrl-C, SIGTERM or SIGHUP; finished trials are kept"""
UNWRITABLE = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
MOST_MINUTES = 10_080  # a week
BENCH_EXIT_CODES = """\b
Exit codes are those of the `harness run` in it, but
  1  also if a version could not be measured, which is written down
  2  also on bad input"""
GATE_EXIT_CODES = """\b
Exit codes:
  0  nothing is slower than allowed
  1  something is, or a row that BASE has is missing or not ok in NEW
  2  undecided; the output says how much more measuring would decide. Also bad input."""


class Group(click.Group):
    """Commands whose HarnessError becomes one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with ended_by_signals():
                return super().invoke(ctx)
        except HarnessError as error:
            text = str(error)
            say(f"harness: {text if text.isprintable() else repr(text)[1:-1]}")
            ctx.exit(74 if isinstance(error, StoreError) else 2)
        except KeyboardInterrupt as interruption:
            number = getattr(interruption, "number", signal.SIGINT)
            say(f"harness: ended by {signal.Signals(number).name}")
            ctx.exit(128 + number)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own ends; the last one when the reader of the output went away
        except Exception as error:
            if isinstance(error, OSError) and error.errno in UNWRITABLE and error.filename is None:
                say(f"harness: the output cannot be written: {error.strerror}")
                ctx.exit(74)
            with contextlib.suppress(OSError):
                traceback.print_exception(error)
            say(f"harness: this is a bug of the harness: {one_line(error)}; please report it")
            ctx.exit(70)
        finally:
            drop_what_cannot_be_written()


@click.group(cls=Group, epilog=EXIT_CODES)
@click.version_option(harness.__version__, prog_name="harness")
def main() -> None:
    """Parity, accuracy and latency of recurrent models on every runtime, in one table that can be trusted.

    \b
      harness run              every installed variant on scikit-learn's digits, in 3 to 7 minutes
      harness run --model my_layer:build
                               your own layer, on every runtime, without a package
      harness run tutorial     the four LSTMs and their ONNX variants on MNIST
      harness run scenarios    the same, in every way in which inputs can come
      harness list             what is installed, and what failed to load and why
      harness calibrate        how small a difference this machine lets one see
      harness import FILE      a run made of what pytest-benchmark measured
      harness compare A B      two runs or more: ratios with intervals and verdicts
      harness history results  what became of every row, run after run
      harness bench --with 'onnxruntime==1.31.*' -- quick
                               the same with another version of a library, which it installs
      harness matrix FOLDER    such runs in one table: variants, and a column a version
      harness gate RUN --max-slowdown 3%
      harness new-plugin NAME  a package of your own to begin with
    """


@main.command(epilog=EXIT_CODES)
@click.argument("suite", required=False)
@override_suite
@choose_plugins
@click.option("--out", type=click.Path(path_type=Path), help="Folder for this run; by default a new one in results/.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Do what is missing in this run.")
@click.option("--allow-changed", is_flag=True, help="Resume although the environment or the suite has changed.")
@click.option("--dry-run", is_flag=True, help="Print the plan and about how long it takes; run nothing.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
@choose_wide
def run(
    suite: str | None,
    model: str | None,
    weights: str | None,
    data_dir: Path | None,
    plugins: list[str] | None,
    out: Path | None,
    resume: Path | None,
    allow_changed: bool,
    dry_run: bool,
    quiet: bool,
    wide: bool,
    **overrides: Any,
) -> None:
    """Run SUITE: a built-in one (quick, tutorial, deploy, scenarios, full) or a .toml file. Without SUITE, quick.

    With --resume the suite is the run's own; what else is given must not change it.
    """
    from harness.own_model import from_header, without_own
    from harness.running import Resumption, run_suite
    from harness.suite import override, parse_suite_table, read_suite

    own = _own_model(model, weights)
    if resume is None:
        if allow_changed:
            raise HarnessError("--allow-changed: it goes with --resume RUN")
        name, chosen = read_suite(suite or "quick")
        if own:
            patterns = overrides["models"] if overrides["models"] is not None else chosen.models if suite else []
            everything_else = ["*"] if patterns and all(pattern.startswith("!") for pattern in patterns) else []
            overrides["models"] = [*everything_else, *patterns, own.name]
        chosen = override(chosen, **overrides)
        how: dict[str, Any] = {"own": own, "dry_run": dry_run, "wide": wide}
        run_suite(name, chosen, overrides["baselines"] or [], plugins, data_dir, out, quiet, **how)
        return
    from harness.store import RunFolder

    if out:
        raise HarnessError("--out: with --resume the run stays in its folder; leave one of them out")
    if dry_run:
        raise HarnessError("--dry-run: a run to resume has its plan in run.json; leave one of them out")
    folder, past = RunFolder.reopen(resume)
    with contextlib.closing(folder):
        chosen = read_suite(suite)[1] if suite else parse_suite_table(past.header["suite"], f"the suite of '{resume}'")
        loaded = without_own(plugin["name"] for plugin in past.header["plugins"] if not plugin.get("failure"))
        chosen, baselines = override(chosen, **overrides), overrides["baselines"] or []
        again = Resumption(folder, past, allow_changed)
        own = own or from_header(past.header)
        run_suite(
            past.header["name"], chosen, baselines, plugins or loaded, data_dir, None, quiet, again, own, wide=wide
        )


def _own_model(model: str | None, weights: str | None) -> OwnModel | None:
    """What --model and --weights name."""
    from harness.own_model import OwnModel

    if weights and not model:
        raise HarnessError("--weights: they are those of --model MODULE:ATTRIBUTE; give that too")
    return OwnModel.named(model, weights) if model else None


@main.command(name="list")
@choose_plugins
def list_(plugins: list[str] | None) -> None:
    """Show plugins, models, runtimes, tasks, report formats and suites, and what failed to load and why.

    Exits with 1 if a plugin failed to load.
    """
    from harness.engine.survey import survey
    from harness.formats import with_built_in
    from harness.suites import builtin_suites

    catalog = with_built_in(survey(plugins))
    click.echo("plugins")
    for plugin in catalog.plugins:
        state = f"FAILED: {plugin.failure}" if plugin.failure else "ok"
        click.echo(f"  {plugin.name:<16} {plugin.distribution} {plugin.version}  {state}")
    if not catalog.plugins:
        click.echo("  none; install rnn-harness-torch, say")
    for kind in KINDS:
        click.echo(f"{kind}s")
        for entry in catalog.entries:
            if entry.kind == kind:
                clash = [e for e in catalog.entries if (e.kind, e.name) == (kind, entry.name) and e is not entry]
                note = f"  CLASH with {clash[0].plugin.distribution}" if clash else ""
                click.echo(f"  {entry.name:<26} {getattr(entry.value, 'description', '')}{note}")
    click.echo("suites")
    for name, description in builtin_suites().items():
        click.echo(f"  {name:<26} {description}")
    if any(plugin.failure for plugin in catalog.plugins):
        sys.exit(1)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@choose_formats
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for a format's files; by default one in PATH that bears its name. Of several formats each gets a "
    "folder in it.",
)
@choose_plugins
@choose_wide
def report(path: Path, formats: list[str], out: Path | None, plugins: list[str] | None, wide: bool) -> None:
    """Make the tables, report.md, its charts and report.html of the run in PATH again, and print the summary.

    With --format the tables are written in other formats instead; `harness list` names them. What a format wrote before
    is replaced, a folder with anything else in it is refused, and a format that fails leaves everything as it was.
    """
    from harness.format_folders import tell_formats
    from harness.report import write_report
    from harness.terminal import print_summary, tell_damage

    if formats:
        tell_formats(path, formats, out, plugins)
        return
    if out:
        raise HarnessError("--out: it goes with --format NAME")
    found = write_report(path)
    tell_damage(found)
    print_summary(found, wide)


@main.command(name="import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the run; by default a new one in results/.")
def import_(file: Path, out: Path | None) -> None:
    """Make a run of FILE, which pytest-benchmark wrote, for report, compare, history and gate.

    FILE holds raw samples if pytest was called with --benchmark-json FILE, or with --benchmark-autosave and
    --benchmark-save-data. Without them it is refused. Parity of what is imported stays unknown, and so do intervals.
    """
    from harness.importing import import_file

    import_file(file, out, ["harness", *sys.argv[1:]])


@main.command(epilog=EXIT_CODES)
@click.option("--variant", default="torch-lstm@eager", show_default=True, help="What is measured against itself.")
@click.option("--task", default="digits-rows", show_default=True, help="Whose shape it is measured at.")
@click.option("--minutes", type=float, default=2.0, show_default=True, help="About how long.")
@choose_plugins
@click.option("--out", type=click.Path(path_type=Path), help="Folder for this run; by default a new one in results/.")
@click.option("--quiet", is_flag=True, help="No progress on standard error.")
def calibrate(
    variant: str, task: str, minutes: float, plugins: list[str] | None, out: Path | None, quiet: bool
) -> None:
    """Measure this machine: how often does the interval of identical code exclude 1, and how small a slowdown is found?

    The same code is opened six times and compared in three pairs, as `harness run` compares variants of one runtime.
    """
    from harness.engine.survey import survey
    from harness.plan import make_plan
    from harness.running import execute_plan
    from harness.suite import Suite, override
    from harness.tables import calibration, records
    from harness.terminal import calibration_lines

    model, _, runtime = variant.partition("@")
    if not re.fullmatch(r"[\w.-]+@[\w.-]+", variant):
        raise HarnessError(f"--variant {variant}: write model@runtime, such as torch-lstm@eager")
    if not 0 < minutes <= MOST_MINUTES:
        raise HarnessError(f"--minutes {minutes:g}: more than 0 and at most {MOST_MINUTES}")
    sampling = {"scenarios": ["single-stream"], "slices": 5, "max_slices": 1000, "twins": 5}
    sampling |= {"precision": 1e-9, "budget_seconds": 60 * minutes, "calls": 20}
    suite = override(Suite(), models=[model], runtimes=[runtime], tasks=[task], seeds=0, **sampling)
    catalog = survey(plugins)
    plan = make_plan(suite, catalog)
    if not plan.of("calibration"):
        raise HarnessError(f"--variant {variant}: it computes nothing, so it says nothing of what is timed")
    finished = execute_plan("calibrate", plan, catalog, None, out, quiet)
    for row in records(calibration(finished)):
        for line in calibration_lines(row):
            click.echo(line)


@main.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--allow-different", is_flag=True, help="Compare although the environments differ in what matters.")
@choose_file
def compare(base: Path, new: tuple[Path, ...], allow_different: bool, out: Path | None) -> None:
    """Compare runs, or files of samples: every NEW's latency over BASE's, row by row, and how much each carries.

    Runs taken at different times are less certain than one that interleaves both (`harness run --python`), and their
    intervals are wider. With several NEW, the verdicts of all hold together. Exits with 2 if the environments differ
    in what matters.
    """
    from harness.comparing import compare_paths

    compare_paths(base, new, allow_different, out)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@choose_rows
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The newest N runs alone.")
@choose_file
def history(
    folder: Path, variants: list[str] | None, scenarios: list[str] | None, last: int | None, out: Path | None
) -> None:
    """What became of every row in the runs below FOLDER: latencies run after run, the newest against the one before
    and against the first, and what changed in between.

    Runs of another machine are a series of their own. A run that cannot be read is named and left out. Loads are not in
    it.
    """
    from harness.comparing import tell_history
    from harness.history import Meant

    tell_history(folder, Meant(variants, scenarios), last, out)


@main.command(epilog=BENCH_EXIT_CODES)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENTS OF harness run]")
@click.option(
    "--with",
    "requirements",
    multiple=True,
    required=True,
    metavar="REQUIREMENT",
    help="Install this first, such as 'onnxruntime==1.31.*'; repeat it for more.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results/matrix"),
    show_default=True,
    help="Folder in which the run gets one of its own.",
)
@click.option(
    "-c",
    "--constraint",
    "constraints",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Versions of whatever else is installed with it; what it pins of a REQUIREMENT does not count.",
)
@click.pass_context
def bench(
    ctx: click.Context,
    arguments: tuple[str, ...],
    requirements: tuple[str, ...],
    into: Path,
    constraints: tuple[Path, ...],
) -> None:
    """Install other versions of libraries here, and run a suite with them: one column of `harness matrix`.

    It changes what is installed beside this harness, so it is for an environment of its own, as tox makes one. A
    version that cannot be installed or imported is written down with the reason. One runs at a time in one folder;
    another waits.
    """
    from harness.benching import bench as bench_with
    from harness.suite import DEFAULT_SUITE, read_suite

    given = run.make_context("run", list(arguments), parent=ctx).params
    read_suite(given["suite"] or DEFAULT_SUITE)  # a mistake is told before anything is installed
    for option in ("out", "resume", "dry_run", "pythons"):
        if given[option]:
            name = {"pythons": "python"}.get(option, option.replace("_", "-"))
            raise HarnessError(f"--{name}: it does not go with harness bench, which makes a new run in --into")
    sys.exit(bench_with(requirements, into, constraints, arguments))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@choose_rows
@click.option("--allow-different", is_flag=True, help="Merge runs although the environments differ in what matters.")
@choose_file
def matrix(
    folder: Path, variants: list[str] | None, scenarios: list[str] | None, allow_different: bool, out: Path | None
) -> None:
    """The runs below FOLDER in one table: variants and scenarios, and a column for every set of versions.

    Each latency is compared with one to its left. A version that could not be measured is a column with the reason. Of
    several runs of the same versions the newest is shown that lacks no row of an older one. Exits with 2 if the runs
    are of different machines.
    """
    from harness.comparing import tell_matrix
    from harness.history import Meant

    tell_matrix(folder, Meant(variants, scenarios), allow_different, out)


@main.command(epilog=GATE_EXIT_CODES)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path), required=False)
@click.option(
    "--max-slowdown",
    required=True,
    metavar="3%",
    help="How much slower than BASE is still allowed: 5% is a latency of 1.05 or a capacity of 1 / 1.05.",
)
@click.option("--allow-different", is_flag=True, help="Compare although the environments differ in what matters.")
@choose_summary
def gate(base: Path, new: Path | None, max_slowdown: str, allow_different: bool, summary: Path | None) -> None:
    """Is nothing in NEW slower than in BASE by more than is allowed, and does nothing carry less?

    Without NEW, BASE is one interleaved run (`harness run --python`), and its rows are held against their baselines.
    Two separate runs rarely decide a limit under 10%; an interleaved run does.
    """
    from harness.comparing import gate_paths

    sys.exit(gate_paths(base, new, max_slowdown, allow_different, summary))


@main.command()
@click.argument("name", required=False)
@choose_model
@choose_weights
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
@click.option("--checks", callback=names, metavar="A,B", help="Ask these rules only, such as parity or causality.")
@choose_data_dir
@choose_plugins
def check(
    name: str | None,
    model: str | None,
    weights: str | None,
    device: str,
    dtype: str,
    checks: list[str] | None,
    data_dir: Path | None,
    plugins: list[str] | None,
) -> None:
    """Check whether NAME keeps the rules of the contract: a variant (hand-lstm@eager), a model, a runtime, a plugin
    with all it gives, a task, or an accelerator (of --device). A variant is checked with one and with two layers, in
    a worker of its own.

    With --model and no NAME it is that model on every runtime.

    Exits with 1 unless every answer is ok or unsupported.
    """
    from harness.engine.conformance import check_conformance
    from harness.engine.survey import survey, survey_with

    own = _own_model(model, weights)
    if not (own or name):
        raise click.UsageError("Missing argument 'NAME', or --model MODULE:ATTRIBUTE.")
    worst = 0
    with contextlib.ExitStack() as stack:
        if own:
            own, catalog = survey_with(own, plugins)
            stack.enter_context(own.handed_over())
        else:
            catalog = survey(plugins)
        asked = name or (own.name if own else "")
        for found in check_conformance(catalog, asked, device, dtype, checks, data_dir):
            outcome = found.outcome
            click.echo(f"{outcome.status:<12} {found.name:<28} {found.what}  {outcome.reason}".rstrip())
            worst = max(worst, 0 if outcome.status in ("ok", "unsupported") else 1)
    sys.exit(worst)


@main.command(name="new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(OF_A_RUN), default="model", show_default=True, help="What it gives.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="A new or empty folder; by default ./NAME.")
def new_plugin(name: str, kind: str, out: Path | None) -> None:
    """Write a package with the plugin NAME, to begin with: it can be installed, checked and run as it is.

    NAME is also that of the model, runtime or task it gives. No file is written unless all are.
    """
    from harness.engine.survey import survey
    from harness.new_plugin import check_is_free, check_name, next_commands, package_files, write_package

    check_name(name)
    everything = [plugin.name for plugin, _ in installed_plugins()]  # whatever HARNESS_PLUGINS says
    check_is_free(name, kind, survey(everything))
    folder = out or Path(name)
    write_package(package_files(name, kind), folder)
    click.echo(f"{kind} '{name}' is in {folder}; next:\n")
    for line in next_commands(name, kind, folder):
        click.echo(f"  {line}")
