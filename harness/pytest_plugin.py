"""The pytest plugin: with `--harness` every variant and latency of a suite is a test, timed by pytest-benchmark.

Without it, and without a test that uses `harness_variant`, neither NumPy nor a plugin is imported and nothing is
shown. What it does then is in `harness.pytest_items`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.engine.in_process import OpenVariant

EXTRA = "pip install 'rnn-harness[pytest]'"
FIXTURE = "harness_variant"
MARKER = "harness: a variant of rnn-harness's in one scenario of the suite"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Two options, in a group of their own."""
    group = parser.getgroup("harness", "variants of recurrent models (rnn-harness)")
    group.addoption(
        "--harness", action="store_true", help="Check and time every variant of the suite, each scenario as a test."
    )
    group.addoption(
        "--harness-suite",
        metavar="SUITE",
        help="What --harness and the fixture harness_variant mean: a built-in suite or a .toml file; by default quick.",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Say how many threads native libraries may use, before a conftest can load any of them."""
    if getattr(early_config.known_args_namespace, "harness", False):
        _set_threads(early_config)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to collect variants, if that is asked for.

    Raises:
        UsageError: what that needs is not there.
    """
    if not config.getoption("harness"):
        return
    if not hasattr(config.option, "benchmark_disable"):
        way = "leave out -p no:benchmark" if _is_installed("pytest_benchmark") else EXTRA
        raise pytest.UsageError(f"--harness: pytest-benchmark, which times, is not there; {way}")
    if problem := _missing():
        raise pytest.UsageError(f"--harness: {problem}")
    from harness.pytest_items import Collection

    config.addinivalue_line("markers", MARKER)
    config.pluginmanager.register(Collection(config), "harness-collection")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Ask for a test once with every variant, if it uses the fixture."""
    if FIXTURE in metafunc.fixturenames:
        if problem := _missing():
            raise pytest.Collector.CollectError(f"{FIXTURE}: {problem}")
        from harness.pytest_items import parametrize

        parametrize(metafunc, FIXTURE)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """A test that uses the fixture and raises `Unsupported` or `DataError` is skipped with the reason."""
    if FIXTURE not in getattr(item, "fixturenames", ()):
        return (yield)
    from harness.pytest_items import skipped_if_unsupported

    with skipped_if_unsupported(item):
        return (yield)


@pytest.fixture
def harness_variant(request: pytest.FixtureRequest) -> Iterator[OpenVariant]:
    """Every variant of the suite, open with probe weights, its parity checked before and after the test.

    See `harness.engine.in_process.OpenVariant`.
    """
    if not hasattr(request, "param"):
        pytest.fail(
            f"{FIXTURE} can't be asked for while a test runs; name it among the test's arguments", pytrace=False
        )
    from harness.pytest_items import proved

    with proved(request.param, request.node) as variant:
        yield variant


def _set_threads(config: pytest.Config) -> None:
    from harness.contract import HarnessError
    from harness.engine.process import THREAD_VARIABLES
    from harness.suite import DEFAULT_SUITE, read_suite

    try:
        name, suite = read_suite(config.known_args_namespace.harness_suite or DEFAULT_SUITE)
        if suite.latency.cold_cache:  # pytest-benchmark goes on until enough was timed, and emptying them is not timed
            raise HarnessError(f"suite '{name}' has cold_cache, which would take hours under pytest; use harness run")
    except HarnessError as error:
        raise pytest.UsageError(f"--harness-suite: {error}") from error
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(suite.threads))
    config.add_cleanup(lambda: _put_back(before))


def _put_back(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _missing() -> str:
    is_there = _is_installed("threadpoolctl")
    return "" if is_there else f"threadpoolctl, which holds the number of threads, is not there; {EXTRA}"


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
