"""What a stranger wrote goes on working: the package in plugins/examples, installed where only wheels of ours are."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pandas as pd
import pytest
from clean_environment import ROOT, CleanEnvironment, build_wheels

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="the example is written in torch"),
]
EXAMPLE = ROOT / "plugins" / "examples" / "mingru"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> CleanEnvironment:
    """With the core, the plugins that the example needs, and the example."""
    folder = tmp_path_factory.mktemp("clean")
    sources = [ROOT, ROOT / "plugins" / "torch", ROOT / "plugins" / "tasks", EXAMPLE]
    return CleanEnvironment(folder, build_wheels(sources, folder))


def test_nothing_of_this_checkout_is_there(environment: CleanEnvironment) -> None:
    code = "import harness, mingru; print(harness.__file__, mingru.__file__)"
    for path in environment.run("python", "-c", code).split():
        assert Path(path).is_relative_to(environment.folder)


def test_it_is_listed_beside_the_plugins_that_were_installed_and_no_other(environment: CleanEnvironment) -> None:
    plugins = environment.run("harness", "list").partition("\nmodels\n")[0].splitlines()[1:]
    assert [line.split() for line in plugins] == [
        ["mingru", "mingru", "0.1.0", "ok"],
        ["tasks", "rnn-harness-tasks", "0.1.0", "ok"],
        ["torch", "rnn-harness-torch", "0.1.0", "ok"],
    ]


@pytest.mark.parametrize("model", ["mingru", "mingru-scan"])
def test_it_is_right(environment: CleanEnvironment, model: str) -> None:
    for runtime in ("eager", "eager-bf16"):
        told = environment.run("harness", "check", f"{model}@{runtime}")
        assert {tuple(line.split()[:2]) for line in told.splitlines()} <= {
            ("ok", f"{model}@{runtime}"),
            ("unsupported", f"{model}@{runtime}"),
        }
        assert f"ok           {model}@{runtime}" in told


def test_it_passes_its_own_tests(environment: CleanEnvironment, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "tests"):
        source = EXAMPLE / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", folder=tmp_path)


def test_a_run_with_it_is_ok_in_every_row(environment: CleanEnvironment, tmp_path: Path) -> None:
    chosen = ["--models", "mingru*", "--runtimes", "eager", "--tasks", "digits-rows"]
    short = ["--seeds", "1", "--slices", "2", "--max-slices", "2", "--quiet", "--out", str(tmp_path / "run")]
    environment.run("harness", "run", *chosen, *short)
    trials = pd.read_csv(tmp_path / "run" / "tables" / "trials.csv")
    assert set(trials.variant) == {"mingru@eager", "mingru-scan@eager"}
    assert set(trials.status) <= {"ok", "unsupported"}
    assert trials[trials.status == "unsupported"].reason.notna().all()
    summary = pd.read_csv(tmp_path / "run" / "tables" / "summary.csv")
    assert (summary.score > 0.8).all()
