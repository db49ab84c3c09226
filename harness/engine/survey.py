"""What the installed plugins give, found out without running a line of their code in this process."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from harness.catalog import Catalog, Plugin, check_names, chosen_names
from harness.contract import HarnessError
from harness.description import from_description
from harness.engine.process import WorkerFailure, WorkerProcess

SECONDS = 60.0  # how long loading one plugin may take


def survey(only: Collection[str] | None = None, seconds: float = SECONDS) -> Catalog:
    """The catalog of what plugins say of themselves, without their code: that stays in workers.

    Plugins are loaded one after the other in one worker. One that ends it, or takes too long, is kept with its reason,
    and the others are loaded in a fresh worker. So a plugin can harm neither this process nor another plugin.

    Args:
        only: the plugins to load, by name, as for `harness.discover`.
        seconds: how long loading one may take.

    Raises:
        HarnessError: no plugin has one of the wanted names, or a worker cannot be started.
    """
    installed: list[Plugin] | None = None
    failures: dict[int, str] = {}
    while True:  # every round but the last finds one more that fails
        try:
            worker = WorkerProcess(threads=1)
        except OSError as error:
            raise HarnessError(f"a worker cannot be started: {error.strerror}") from error
        with worker:
            before, installed = installed, _installed(worker)
            if before not in (None, installed):
                raise HarnessError("the installed plugins changed while they were loaded; try again")
            found = _load_all(worker, installed, _wanted(only, installed), failures, seconds)
        if found is not None:
            failed = tuple(replace(installed[index], failure=reason) for index, reason in failures.items())
            return Catalog(tuple(sorted(found.plugins + failed, key=lambda plugin: plugin.name)), found.entries)


def _installed(worker: WorkerProcess) -> list[Plugin]:
    try:
        return [Plugin(**facts) for facts in worker.ask("plugins", SECONDS)]
    except WorkerFailure as failure:
        raise HarnessError(f"the installed plugins cannot be listed: {failure.reason}") from failure


def _wanted(only: Collection[str] | None, installed: list[Plugin]) -> list[int]:
    chosen = chosen_names(only)
    check_names(chosen or (), [plugin.name for plugin in installed])
    return [index for index, plugin in enumerate(installed) if chosen is None or plugin.name in chosen]


def _load_all(
    worker: WorkerProcess, installed: list[Plugin], wanted: list[int], failures: dict[int, str], seconds: float
) -> Catalog | None:
    """What all plugins give that are not known to fail; None, and one failure more, if another one does."""
    catalog = Catalog((), ())
    loaded: list[Plugin] = []
    for index in wanted:
        if index not in failures:
            try:
                catalog = from_description(worker.ask("load_plugin", seconds, index=index))
                loaded.append(installed[index])
                if [replace(plugin, failure=None) for plugin in catalog.plugins] != loaded:
                    raise HarnessError("what it says of itself is about others")
            except (WorkerFailure, HarnessError) as error:
                failures[index] = _reason(error, seconds)
                return None
    return catalog


def _reason(error: Exception, seconds: float) -> str:
    if not isinstance(error, WorkerFailure):
        return str(error)
    if error.status == "timed-out":
        return f"timed-out: loading it took longer than {seconds:g} s"
    if error.status == "crashed":
        return f"crashed: {error.reason} while it was loaded"
    return error.reason if error.alive else f"{error.status}: {error.reason}"
