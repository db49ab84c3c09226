"""The command line. What is slow to import is imported by the command that needs it."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.contract import HarnessError, one_line

if TYPE_CHECKING:
    from harness.catalog import Catalog
    from harness.plan import Plan
    from harness.suite import Suite

EXIT_CODES = """\b
Exit codes:
  0  every row is ok (or unsupported, or skipped for want of something to train it)
  1  some rows are wrong, failed, crashed or timed out; all others are there
  2  nothing ran: bad input
  70  a bug of the harness itself
  130  interrupted; finished trials are kept"""


class Group(click.Group):
    """Commands whose HarnessError becomes one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            click.echo(f"harness: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("harness: interrupted", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own ends; the last one when the reader of the output went away
        except Exception as error:
            traceback.print_exception(error)
            click.echo(f"harness: this is a bug of the harness: {one_line(error)}; please report it", err=True)
            ctx.exit(70)


@click.group(cls=Group, epilog=EXIT_CODES)
@click.version_option(harness.__version__, prog_name="harness")
def main() -> None:
    """Parity, accuracy and latency of recurrent models on every runtime, in one table that can be trusted.

    \b
      harness run              every installed variant on scikit-learn's digits, in under 3 minutes
      harness run tutorial     the four LSTMs and their ONNX variants on MNIST
      harness list             what is installed, and what failed to load and why
    """


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    return [name.strip() for name in value.split(",") if name.strip()] if value is not None else None


@main.command(epilog=EXIT_CODES)
@click.argument("suite", default="quick")
@click.option("--models", callback=_names, metavar="A,B", help="Models to run; names or patterns such as 'hand-*'.")
@click.option("--runtimes", callback=_names, metavar="A,B", help="Runtimes to run them on.")
@click.option("--tasks", callback=_names, metavar="A,B", help="Tasks to run them on.")
@click.option("--baselines", callback=_names, metavar="A@B", help="Variants that others are compared with.")
@click.option("--device", help="cpu, or an accelerator such as cuda.")
@click.option("--dtype", help="float32 or float64.")
@click.option("--threads", type=int, help="Threads a call may use.")
@click.option("--seeds", type=int, help="Trainings per variant and task; 0 leaves accuracy out.")
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="HARNESS_DATA_DIR",
    help="Folder of data sets, a sub-folder each. [env: HARNESS_DATA_DIR]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for this run; by default a new one in results/.")
@click.option("--quiet", is_flag=True, help="Print the table and nothing else.")
def run(suite: str, data_dir: Path | None, out: Path | None, quiet: bool, **overrides: Any) -> None:
    """Run SUITE: a built-in one (quick, tutorial, full) or a .toml file."""
    from harness.catalog import discover
    from harness.engine.run import execute, preflight
    from harness.plan import make_plan
    from harness.report import write_report
    from harness.store import GOOD_STATUSES, RunFolder
    from harness.suite import override, read_suite
    from harness.terminal import Progress, print_summary

    name, chosen = read_suite(suite)
    chosen = override(chosen, **overrides)
    catalog = discover()
    plan = make_plan(chosen, catalog)
    for baseline in overrides["baselines"] or []:
        if baseline not in map(str, plan.variants()):
            names = ", ".join(map(str, plan.variants()))
            raise HarnessError(f"--baselines: no variant of this run is called '{baseline}'; there are: {names}")
    for plugin in catalog.plugins:
        if plugin.failure:
            click.echo(f"harness: plugin '{plugin.name}' failed to load and is left out: {plugin.failure}", err=True)
    preflight(plan, catalog, data_dir)
    folder = RunFolder(_run_path(out, name), _header(name, chosen, plan, catalog))
    progress = Progress(quiet)
    try:
        with progress:
            execute(plan, catalog, folder, data_dir, progress)
    except KeyboardInterrupt:
        kept = write_report(folder.path).trials
        click.echo(
            f"harness: {kept['status'].ne('skipped').sum()} of {len(kept)} trials are kept in {folder.path}", err=True
        )
        raise
    finally:
        folder.close()
    finished = write_report(folder.path)
    print_summary(finished)
    click.echo(f"\nReport: {folder.path / 'report.md'}")
    if not set(finished.trials["status"]) <= GOOD_STATUSES:
        sys.exit(1)


@main.command(name="list")
def list_() -> None:
    """Show plugins, models, runtimes, tasks and suites, and what failed to load and why.

    Exits with 1 if a plugin failed to load.
    """
    from harness.catalog import KINDS, discover
    from harness.suites import builtin_suites

    catalog = discover()
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
def report(path: Path) -> None:
    """Make the tables and report.md of the run in PATH again, and print the summary."""
    from harness.report import write_report
    from harness.terminal import print_summary

    print_summary(write_report(path))
    click.echo(f"\nReport: {path / 'report.md'}")


@main.command()
@click.argument("name")
@click.option("--device", default="cpu", show_default=True)
@click.option("--dtype", default="float32", show_default=True)
def check(name: str, device: str, dtype: str) -> None:
    """Check the parity of NAME: a variant (hand-lstm@eager), a model, or a runtime; one and two layers.

    Exits with 1 unless every answer is ok or unsupported.
    """
    from harness.catalog import discover
    from harness.engine.run import check_parity

    worst = 0
    for variant, layers, outcome in check_parity(discover(), name, device, dtype):
        click.echo(f"{outcome.status:<12} {variant!s:<28} {layers}  {outcome.reason}".rstrip())
        worst = max(worst, 0 if outcome.status in ("ok", "unsupported") else 1)
    sys.exit(worst)


def _run_path(out: Path | None, name: str) -> Path:
    from datetime import UTC, datetime

    return out or Path("results") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _header(name: str, suite: Suite, plan: Plan, catalog: Catalog) -> dict[str, Any]:
    """What `run.json` says: everything known before the first trial."""
    from harness.environment import environment

    owners = {(entry.kind, entry.name): entry.plugin for entry in catalog.entries}
    distributions = [plugin.distribution for plugin in catalog.plugins if not plugin.failure]
    return {
        "name": name,
        "suite": suite.model_dump(),
        "baselines": {architecture: str(variant) for architecture, variant in plan.baselines.items()},
        "floors": list(plan.floors),
        "plugins": [vars(plugin) for plugin in catalog.plugins],
        "environment": environment(distributions, ["harness", *sys.argv[1:]]),
        "trials": [trial.row(owners["model", trial.variant.model]) for trial in plan.trials],
    }
