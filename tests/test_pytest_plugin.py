"""The pytest plugin's door: it does nothing unless it is asked, and says in one line what it needs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pytest_runs import ask
from strangers import QUICK, World

HIDDEN = """
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == {name!r} else find_spec(name, *more)
"""
WHAT_IS_LOADED = """
import sys
import pytest
code = pytest.main(sys.argv[1:])
slow = {"numpy", "pandas", "scipy", "torch", "pydantic", "psutil", "threadpoolctl", "harness.pytest_items"}
print("loaded:", sorted(slow & sys.modules.keys()) + [name for name in sys.modules if name.startswith("stranger_")])
"""
THREADS_AFTERWARDS = """
import os, sys
import pytest
code = pytest.main(sys.argv[1:])
print("afterwards:", os.environ["OMP_NUM_THREADS"], os.environ.get("OPENBLAS_NUM_THREADS"))
"""
TWO_TESTS = "def test_one(): pass\n\ndef test_two():\n    assert 1 == 2\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(tmp_path / "plugins", monkeypatch)
    found.add_plain()
    (tmp_path / "suite.toml").write_text("threads = 3\n" + QUICK, encoding="utf-8")
    return found


def hide(world: World, name: str) -> None:
    """As if it were not installed."""
    with (world.folder / "sitecustomize.py").open("a", encoding="utf-8") as file:
        file.write(HIDDEN.format(name=name))


def test_without_the_option_nothing_is_imported(world: World, tmp_path: Path) -> None:
    done = ask(tmp_path, "-q", script=WHAT_IS_LOADED, test_plain="def test_one(): pass\n")
    assert "1 passed" in done.text
    assert done.lines[-1] == "loaded: []"
    asked = ask(tmp_path, "-q", "--harness", "--collect-only", script=WHAT_IS_LOADED)  # so that the list can be wrong
    assert "numpy" in asked.lines[-1]
    assert "stranger_" not in asked.lines[-1]  # plugins are asked in a worker what they give


def test_without_the_option_the_output_is_what_it_is_without_the_plugin(world: World, tmp_path: Path) -> None:
    texts = [
        ask(tmp_path, "-v", "-p", "no:cacheprovider", *more, test_two=TWO_TESTS).text for more in ([], ["-pno:harness"])
    ]
    with_it, without = (re.sub(r"in [\d.]+s|rnn-harness-[\w.]+(, )?", "", text) for text in texts)
    assert with_it == without
    assert "1 failed, 1 passed" in without


def test_a_suite_without_the_option_is_not_even_read(world: World, tmp_path: Path) -> None:
    done = ask(tmp_path, "-q", "--harness-suite=none.toml", test_plain="def test_one(): pass\n")
    assert done.code == 0


@pytest.mark.parametrize(
    ("hidden", "options", "said"),
    [
        ("", ["-p", "no:benchmark"], "pytest-benchmark, which times, is not there; leave out -p no:benchmark"),
        (
            "pytest_benchmark",
            ["-p", "no:benchmark"],
            "pytest-benchmark, which times, is not there; pip install 'rnn-harness[pytest]'",
        ),
        (
            "threadpoolctl",
            [],
            "threadpoolctl, which holds the number of threads, is not there; pip install 'rnn-harness[pytest]'",
        ),
    ],
)
def test_what_is_missing_is_one_line_with_the_next_step(
    world: World, tmp_path: Path, hidden: str, options: list[str], said: str
) -> None:
    if hidden:
        hide(world, hidden)
    done = ask(tmp_path, "--harness", *options)
    assert done.code == 4
    assert done.text.strip() == f"ERROR: --harness: {said}"


def test_a_test_with_the_fixture_says_so_too(world: World, tmp_path: Path) -> None:
    hide(world, "threadpoolctl")
    done = ask(tmp_path, "-q", test_own="def test_own(harness_variant): pass\n")
    assert done.code == 2
    assert "harness_variant: threadpoolctl, which holds the number of threads, is not there; pip install" in done.text
    assert "Traceback" not in done.text


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("quik", "no suite is called 'quik'; did you mean 'quick'?"),
        ("none.toml", "suite 'none.toml' cannot be read: No such file or directory"),
        ("cold.toml", "suite 'cold' has cold_cache, which would take hours under pytest; use harness run"),
        ("wrong.toml", "suite 'wrong.toml', line 1: unknown key 'thread'; allowed here: description"),
    ],
)
def test_a_suite_that_is_none_is_one_line(world: World, tmp_path: Path, suite: str, said: str) -> None:
    (tmp_path / "wrong.toml").write_text("thread = 1\n", encoding="utf-8")
    (tmp_path / "cold.toml").write_text("[latency]\ncold_cache = true\n", encoding="utf-8")
    done = ask(tmp_path, "--harness", "--harness-suite", suite)
    assert done.code == 4
    assert done.text.startswith(f"ERROR: --harness-suite: {said}")
    assert len(done.text.strip().splitlines()) == 1


def test_libraries_that_a_conftest_loads_have_the_suites_threads_and_others_theirs_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    conftest = "import os\nSEEN = os.environ['OMP_NUM_THREADS'], os.environ['OPENBLAS_NUM_THREADS']\n"
    test = "def test_them():\n    import conftest\n    assert conftest.SEEN == ('3', '3')\n"
    done = ask(
        tmp_path,
        *("-q", "--harness", "--harness-suite=suite.toml", "-k", "test_them"),
        script=THREADS_AFTERWARDS,
        conftest=conftest,
        test_threads=test,
    )
    assert "1 passed" in done.text
    assert done.lines[-1] == "afterwards: 7 None"
