"""What the pytest plugin does when it is asked: variants as tests, proved and timed in pytest's own process.

Their node ids begin with `harness::`, which is no file: `harness::digits-rows::hand-lstm@numpy::offline`.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import Catalog, Plugin, hint
from harness.contract import DataError, HarnessError, Unsupported, printable
from harness.engine.in_process import InProcess, OpenVariant, Windows, Wrong
from harness.engine.process import WorkerFailure
from harness.engine.survey import survey
from harness.interchange import extra_info, names_of, params_of
from harness.plan import Plan, Setting, Trial, make_plan
from harness.sides import Point
from harness.suite import DEFAULT_SUITE, read_suite

ROOT = "harness"
PLUGINS = "plugins"  # under which those are that cannot be loaded
NOT_HERE = ("accuracy", "load", "calibration")  # kinds of trials
OURS = "median of the rounds of one instance, in one process; it has no interval"


@dataclass(frozen=True)
class Planned:
    """What the suite means here: its name, what is installed, what may be asked, and who answers."""

    suite: str
    catalog: Catalog
    plan: Plan
    worker: InProcess

    @property
    def broken(self) -> list[Plugin]:
        """The plugins that cannot be loaded."""
        return [plugin for plugin in self.catalog.plugins if plugin.failure]

    def place(self, setting: Setting) -> str:
        """A setting's name in a node id: its task, and what a sweep may change if it has several."""
        if sum(other.task == setting.task for other in self.plan.settings()) == 1:
            return setting.task
        size = setting.size
        return f"{setting.task}-H{size.hidden_size}-L{size.num_layers}-{setting.dtype}-{setting.threads}t"

    def asked(self) -> dict[str, Trial]:
        """What the fixture asks a test with, by its name in the test's id: every variant in every setting."""
        is_one = len(self.plan.settings()) == 1
        trials = self.plan.of("parity")
        return {str(t.variant) if is_one else f"{t.variant}-{self.place(t.setting)}": t for t in trials}

    def name(self, trial: Trial) -> str:
        """A latency trial's name below its variant's: its scenario, and the shape if the scenario has several."""
        shapes = {t.point for t in self.plan.of("latency", trial.task) if t.scenario == trial.scenario}
        return f"{trial.scenario}-{trial.batch}x{trial.time}" if len(shapes) > 1 else str(trial.scenario)


PLANNED = pytest.StashKey[Planned]()
TOLD = pytest.StashKey["Told"]()
TIMED_BEFORE = pytest.StashKey[int]()  # of a test: the benchmarks that were there when its variant was opened


def planned(config: pytest.Config) -> Planned:
    """The suite's plan, made once. Plugins are asked in a worker what they give; none is loaded here for that.

    Raises:
        HarnessError: no such suite, or nothing to run.
    """
    if PLANNED not in config.stash:
        name, suite = read_suite(config.getoption("harness_suite") or DEFAULT_SUITE)
        catalog = survey()
        plan = make_plan(suite, catalog)
        cache = tempfile.TemporaryDirectory(prefix="harness-")
        config.add_cleanup(cache.cleanup)
        folder = os.environ.get("HARNESS_DATA_DIR")
        worker = InProcess(plan, catalog, Path(cache.name), Path(folder) if folder else None)
        found = config.stash[PLANNED] = Planned(name, catalog, plan, worker)
        told = config.stash[TOLD] = Told(found)
        config.pluginmanager.register(told, "harness-told")
    return config.stash[PLANNED]


class Collection:
    """Adds the suite's variants to what pytest collects.

    Args:
        config: of a session with `--harness`.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._wanted: list[str] = []
        self._are_others = False  # ids of other tests were given, and none of ours

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Take our node ids out of the command line, before pytest looks for files of that name."""
        given = {arg: self._own_id(arg) for arg in self._config.args}
        self._wanted = [own for own in given.values() if own]
        self._config.args = [arg for arg, own in given.items() if not own]
        self._are_others = not self._wanted and any("::" in arg for arg in given)

    def _own_id(self, given: str) -> str:
        """The node id, if it is one of ours: below the root folder pytest writes `../harness::`."""
        path, colons, rest = given.partition("::")
        at = os.path.normpath(self._config.invocation_params.dir / path)
        is_own = bool(colons) and (path == ROOT or at == os.path.normpath(self._config.rootpath / ROOT))
        return f"{ROOT}::{rest}" if is_own else ""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        """Add our root to what a session holds."""
        report = yield
        if isinstance(collector, pytest.Session) and report.passed and not self._are_others:
            path = self._config.rootpath / ROOT
            report.result.append(
                Variants.from_parent(collector, name=ROOT, path=path, nodeid=ROOT, wanted=self._wanted)
            )
        return report


class Told:
    """Says what a plan leaves out and what did not go as planned. Of a session that has one."""

    def __init__(self, found: Planned) -> None:
        self._found = found
        self.pools: set[str] = set()  # of threads that were not held to a trial's number

    def pytest_report_collectionfinish(self) -> list[str]:
        """What the suite asks for besides, and who could not be asked."""
        found = self._found
        counts = ((kind, len(found.plan.of(kind))) for kind in NOT_HERE)
        rest = ", ".join(f"{count} {kind} trial{'s' * (count > 1)}" for kind, count in counts if count)
        more = f"; not here: {rest}; harness run has them" if rest else ""
        lines = [f"harness: suite {found.suite}, {len(found.plan.variants())} variants{more}"]
        return lines + [f"harness: {_failure(plugin)}" for plugin in found.broken]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Which threads were not as the suite has it."""
        if self.pools:
            told = ", ".join(sorted(self.pools))
            terminalreporter.write_line(f"harness: number of threads not held: {told}; see extra_info", yellow=True)


class Variants(pytest.Collector):
    """The root of our nodes.

    Args:
        wanted: node ids; what is below one of these is collected. None given means all.
    """

    def __init__(self, wanted: list[str], **more: Any) -> None:
        super().__init__(**more)
        self._wanted = wanted

    def collect(self) -> Iterable[pytest.Item]:
        """The tests, in the plan's order."""
        try:
            items = list(_items(self, planned(self.config)))
        except HarnessError as error:
            raise self.CollectError(f"--harness: {error}") from error
        ids = [item.nodeid for item in items]
        for one in self._wanted:
            if not any(_is_below(name, one) for name in ids):
                raise self.CollectError(f"not found: {printable(one)}; {hint(one, ids)}")
        wanted = self._wanted or [ROOT]
        return [item for item in items if any(_is_below(item.nodeid, one) for one in wanted)]


class Place(pytest.Module):
    """A setting of the suite, which holds its variants. A module as pytest knows it, for fixtures of that scope."""


class Below(pytest.Collector):
    """A variant in a setting, which holds its scenarios."""

    def collect(self) -> Iterable[pytest.Item]:
        """Nothing: the root has collected its tests."""
        return []


class VariantTest(pytest.Function):
    """One test; it stands in no file."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is said to stand, and the title of its failure."""
        return self.path, 0, self.nodeid.removeprefix(f"{ROOT}::")


def _is_below(name: str, wanted: str) -> bool:
    """Whether a node id is wanted: the root, a place, a variant with all its scenarios, or one test."""
    return wanted in (name, f"{ROOT}::") or name.startswith(f"{wanted}::")


def _items(root: Variants, found: Planned) -> Iterator[pytest.Item]:
    for setting in found.plan.settings():
        place = _place(root, found.place(setting))
        trials = [trial for trial in found.plan.trials if trial.setting == setting]
        for variant in dict.fromkeys(trial.variant for trial in trials):
            below: Below = Below.from_parent(place, name=str(variant))
            own = [trial for trial in trials if trial.variant == variant]
            for trial in [trial for trial in own if trial.kind == "latency"]:
                windows = Windows()
                item = _test(below, found.name(trial), _latency_test(trial, windows))
                item.add_marker(pytest.mark.benchmark(timer=windows.seconds))
                yield item
            if not any(trial.kind == "latency" for trial in own):
                yield from (_test(below, "parity", _parity_test(trial)) for trial in own if trial.kind == "parity")
    place = _place(root, PLUGINS)
    yield from (_test(place, plugin.name, _broken_plugin_test(plugin)) for plugin in found.broken)


def _place(root: Variants, name: str) -> Place:
    place: Place = Place.from_parent(root, name=name, path=root.path, nodeid=f"{ROOT}::{name}")
    place.obj = sys.modules[__name__]
    return place


def _test(parent: pytest.Collector, name: str, function: Callable[..., None]) -> VariantTest:
    item: VariantTest = VariantTest.from_parent(parent, name=name, callobj=function)
    item.add_marker("harness")
    return item


def _latency_test(trial: Trial, windows: Windows) -> Callable[..., None]:
    def test(benchmark: Any, request: pytest.FixtureRequest) -> None:
        point = _point(trial)
        benchmark.name, benchmark.group = names_of(point)
        benchmark.fullname, benchmark.params = f"{benchmark.group}::{benchmark.name}", params_of(point)
        with _opened(trial, request.node) as variant:
            variant.time(benchmark, windows, benchmark.enabled)
            if benchmark.enabled:
                row = {"latency_s": benchmark.stats["median"], "processes": 1, "instances": 1}
                benchmark.extra_info |= extra_info(row, "ok", trial.compute_dtype) | {"estimate": OURS}

    return test


def _parity_test(trial: Trial) -> Callable[..., None]:
    def test(request: pytest.FixtureRequest) -> None:
        with _opened(trial, request.node) as variant:
            variant.check()

    return test


def _broken_plugin_test(plugin: Plugin) -> Callable[..., None]:
    def test() -> None:
        pytest.fail(_failure(plugin), pytrace=False)

    return test


def _failure(plugin: Plugin) -> str:
    return f"plugin '{plugin.name}' cannot be loaded: {plugin.failure}"


def parametrize(metafunc: pytest.Metafunc, fixture: str) -> None:
    """A test that uses the fixture is asked once with every variant in every setting.

    Raises:
        CollectError: there is no such suite, or nothing to run.
    """
    try:
        found = planned(metafunc.config)
    except HarnessError as error:
        raise pytest.Collector.CollectError(f"{fixture}: {error}") from error
    metafunc.parametrize(fixture, list(found.asked()), indirect=True)


@contextmanager
def proved(name: str, node: pytest.Item) -> Iterator[OpenVariant]:
    """A variant, open, whose parity is checked before and after what is done with it; otherwise no number is kept.

    Args:
        name: of `Planned.asked`.
        node: the test that is asked.
    """
    with _opened(planned(node.config).asked()[name], node) as variant:
        variant.check()
        yield variant
        if variant.problem:
            _withhold(node)  # the test has seen it and said so
        else:
            variant.check()


@contextmanager
def skipped_if_unsupported(node: pytest.Item) -> Iterator[None]:
    """A test that finds out that its variant cannot do what it asks is skipped with the reason, and has no number."""
    try:
        yield
    except (Unsupported, DataError) as reason:
        _withhold(node)
        raise pytest.skip.Exception(f"{node.name}: {reason}") from None


@contextmanager
def _opened(trial: Trial, node: pytest.Item) -> Iterator[OpenVariant]:
    """A variant, open; what is not supported is skipped, and what is wrong fails in one line and has no number."""
    where = f"{trial.variant} on {trial.task}"
    node.stash[TIMED_BEFORE] = len(_timed(node))
    if trial.variant.python:
        pytest.skip(f"{where}: another interpreter needs a process of its own; harness run has it")
    try:
        with planned(node.config).worker.opened(trial) as variant:
            yield variant
            _tell_threads(variant, node)
    except (Unsupported, DataError) as reason:
        _withhold(node)
        raise pytest.skip.Exception(f"{where}: {reason}") from None
    except (Wrong, WorkerFailure) as reason:
        _withhold(node)
        raise pytest.fail.Exception(f"{where}: {reason}", pytrace=False) from None
    except BaseException:
        _withhold(node)
        raise


def _tell_threads(variant: OpenVariant, node: pytest.Item) -> None:
    if pools := variant.threads_not_held():
        node.config.stash[TOLD].pools.update(pools)
        for benchmark in _benchmarks(node):
            benchmark.extra_info["threads_not_held"] = pools


def _timed(node: pytest.Item) -> list[Any]:
    """What pytest-benchmark has timed so far in this session, of whatever test."""
    session = node.config.pluginmanager.get_plugin("pytest-benchmark")
    return session.benchmarks if session else []


def _benchmarks(node: pytest.Item) -> list[Any]:
    """The test's fixture of pytest-benchmark's: it is named among its arguments, or was asked for and used since."""
    named = getattr(node, "funcargs", {}).get("benchmark")
    used = [own.fixture for own in _timed(node)[node.stash.get(TIMED_BEFORE, 0) :]]
    return [named, *(own for own in used if own is not named)] if named else used


def _withhold(node: pytest.Item) -> None:
    """What was timed of it is no latency: it stands neither in pytest-benchmark's table nor in its files."""
    for benchmark in _benchmarks(node):
        benchmark.has_error = True  # files leave it out
        if benchmark.stats:
            benchmark.stats.stats.data.clear()  # and so does the table what has no data
        else:
            benchmark.disabled = True
            with suppress(Exception):  # it can be used once only
                benchmark(int)  # or it would warn of a test in which it was not used


def _point(trial: Trial) -> Point:
    known = {field.name: getattr(trial, field.name) for field in fields(Point) if hasattr(trial, field.name)}
    size = {name: getattr(trial.size, name) for name in ("input_size", "hidden_size", "num_layers")}
    return Point(**known | size | {"variant": str(trial.variant), "boundary": "compute"})
