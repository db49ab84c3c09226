"""What the installed plugins give, found out without running a line of their code in this process."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from harness.catalog import OWN_MODEL, Catalog, Plugin, check_names, chosen_names
from harness.contract import HarnessError
from harness.description import from_description
from harness.engine.process import WorkerFailure, WorkerProcess
from harness.own_model import OwnModel

SECONDS = 60.0  # how long loading one plugin may take
LAYER_SECONDS = 300.0  # and finding out what a layer is, for which a framework is imported


def survey(only: Collection[str] | None = None, seconds: float = SECONDS) -> Catalog:
    """The catalog of what plugins say of themselves, without their code: that stays in workers.

    Plugins are loaded one after the other in one worker. One that fails may be another's victim, so it is loaded again
    in a worker of its own, and that counts. If the worker ended, who ended it is not known, and all are loaded so. So a
    plugin can harm neither this process nor another plugin.

    Args:
        only: the plugins to load, by name, as for `harness.discover`.
        seconds: how long loading one may take.

    Raises:
        HarnessError: no plugin has one of the wanted names, or a worker cannot be started.
    """
    with _worker() as worker:
        installed = _installed(worker)
        wanted = _wanted(only, installed)
        found: list[Catalog] = []
        for index in wanted:
            catalog, is_alive = _load(worker, index, installed[index], seconds)
            if not is_alive:
                break
            found.append(_load_alone(index, installed, seconds) if catalog.plugins[0].failure else catalog)
    if len(found) < len(wanted):
        found = [_load_alone(index, installed, seconds) for index in wanted]
    return Catalog(
        tuple(plugin for catalog in found for plugin in catalog.plugins),
        tuple(entry for catalog in found for entry in catalog.entries),
    )


def survey_with(own: OwnModel, only: Collection[str] | None = None) -> tuple[OwnModel, Catalog]:
    """The catalog of the plugins and of a model that a command names; and what was found out about that model.

    Raises:
        HarnessError: as `survey`; or the model cannot be used, and why.
    """
    catalog = survey(only)
    own = own.with_oracle(catalog)
    with own.handed_over():
        found = survey([OWN_MODEL], LAYER_SECONDS)
    if failure := found.plugins[0].failure:
        raise HarnessError(f"--model {own.target}: {failure}")
    if own.name in catalog.names("model"):
        owner = catalog.entry("model", own.name).plugin.distribution
        raise HarnessError(
            f"--model {own.target}: '{owner}' gives a model '{own.name}' too; give the attribute another name"
        )
    both = Catalog(catalog.plugins + found.plugins, catalog.entries + found.entries)
    return own.with_facts(found.model(own.name)), both


def _worker() -> WorkerProcess:
    try:
        return WorkerProcess(threads=1)
    except OSError as error:
        raise HarnessError(f"a worker cannot be started: {error.strerror}") from error


def _installed(worker: WorkerProcess) -> list[Plugin]:
    try:
        return [Plugin(**facts) for facts in worker.ask("plugins", SECONDS)]
    except WorkerFailure as failure:
        raise HarnessError(f"the installed plugins cannot be listed: {failure.reason}") from failure


def _wanted(only: Collection[str] | None, installed: list[Plugin]) -> list[int]:
    chosen = chosen_names(only)
    check_names(chosen or (), [plugin.name for plugin in installed])
    return [index for index, plugin in enumerate(installed) if chosen is None or plugin.name in chosen]


def _load_alone(index: int, installed: list[Plugin], seconds: float) -> Catalog:
    with _worker() as worker:
        if _installed(worker) != installed:
            raise HarnessError("the installed plugins changed while they were loaded; try again")
        return _load(worker, index, installed[index], seconds)[0]


def _load(worker: WorkerProcess, index: int, plugin: Plugin, seconds: float) -> tuple[Catalog, bool]:
    """What a plugin gives, or the plugin with its failure; and whether the worker lives on."""
    is_alive = True
    try:
        catalog = from_description(worker.ask("load_plugin", seconds, index=index))
        if replace(catalog.plugins[0], failure=None) != plugin:
            raise HarnessError("what it says of itself is about another")
    except (WorkerFailure, HarnessError) as error:
        is_alive = error.alive if isinstance(error, WorkerFailure) else False  # or it says what it should not
        catalog = Catalog((replace(plugin, failure=_reason(error, seconds)),), ())
    return catalog, is_alive


def _reason(error: Exception, seconds: float) -> str:
    if not isinstance(error, WorkerFailure):
        return str(error)
    if error.status == "timed-out":
        return f"timed-out: loading it took longer than {seconds:g} s"
    if error.status == "crashed":
        return f"crashed: {error.reason} while it was loaded"
    return error.reason if error.alive else f"{error.status}: {error.reason}"
