"""Going on with a run: what has changed since it began is told, and what always differs is not."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.contract import HarnessError
from harness.resumption import LONGEST_VALUE, differences

HEADER: dict[str, Any] = {
    "schema_version": 3,
    "name": "quick",
    "suite": {"models": ["*"], "baselines": [], "seeds": 3, "latency": {"slices": 5, "max_slices": None}},
    "baselines": {"lstm": "a@r"},
    "floors": [],
    "plugins": [
        {"name": "own", "distribution": "rnn-own", "version": "1.0", "failure": None},
        {"name": "other", "distribution": "rnn-other", "version": "1.0", "failure": None},
    ],
    "environment": {
        "started_utc": "2030-01-01T00:00:00",
        "command": ["harness", "run"],
        "load_average_1min": 0.5,
        "cpu_model": "A CPU",
        "accelerators": [],
        "versions": {"torch": "2.12.0", "rnn-harness": "0.1.0"},
    },
    "trials": [{"trial": "0001-parity", "variant": "a@r"}, {"trial": "0002-latency", "variant": "a@r"}],
    "pythons": {"new": {"python": "3.11.9", "versions": {"numpy": "2.0"}, "engine": "abc"}},
}
TEXT = st.text(max_size=5)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT
JSON = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXT | st.sampled_from(["name", "a.b"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": inner}, optional={"version": inner}), max_size=3)
    ),
    max_leaves=8,
)
HEADERS = st.fixed_dictionaries(dict.fromkeys(("suite", "plugins", "environment", "pythons", "trials"), JSON))
DELETED = object()


def changed(where: str, value: Any) -> dict[str, Any]:
    """`HEADER` with another value at a place; the places in a list are numbers."""
    header = copy.deepcopy(HEADER)
    at: Any = header
    *path, last = (int(part) if part.isdecimal() else part for part in where.split("/"))
    for part in path:
        at = at[part]
    if value is DELETED:
        del at[last]
    else:
        at[last] = value
    return header


def test_a_plugin_that_fails_as_it_did_is_no_difference_whatever_it_says_and_whether_it_is_still_there() -> None:
    before = changed("plugins/1/failure", "no <object at 0x7f01>")
    assert differences(before, changed("plugins/1/failure", "no <object at 0x7f02>")) == []
    assert differences(before, changed("plugins/1", DELETED)) == []
    assert differences(changed("plugins/1", DELETED), before) == []
    assert differences(before, HEADER) == ['plugins other.failure: "no <object at 0x7f01>", now null']


def test_another_version_of_a_plugin_is_a_difference_and_no_other_trial() -> None:
    now = changed("plugins/0/version", "1.1")
    now["trials"] = [trial | {"distribution_version": "1.1"} for trial in HEADER["trials"]]
    assert differences(HEADER, now) == ['plugins own.version: "1.0", now "1.1"']


def test_nothing_has_changed_where_nothing_has() -> None:
    assert differences(HEADER, copy.deepcopy(HEADER)) == []


@given(header=HEADERS)
def test_nothing_differs_from_itself(header: dict[str, Any]) -> None:
    assert differences(json.loads(json.dumps(header)), header) == []


@given(before=HEADERS, now=HEADERS)
def test_every_difference_is_one_line_that_can_be_printed(before: dict[str, Any], now: dict[str, Any]) -> None:
    for line in differences(before, now | {"trials": before["trials"]}):
        assert line.isprintable()


def test_what_was_read_from_a_file_is_held_against_what_was_not() -> None:
    """A tuple and a list are the same JSON."""
    now = copy.deepcopy(HEADER)
    now["suite"]["models"] = ("*",)
    now["plugins"] = tuple(now["plugins"])
    assert differences(HEADER, now) == []


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("environment/started_utc", "2031-12-31T23:59:59"),
        ("environment/command", ["harness", "run", "--resume", "results/quick"]),
        ("environment/load_average_1min", 99.0),
        ("name", "another name"),
    ],
)
def test_what_differs_between_any_two_calls_is_no_change(where: str, value: Any) -> None:
    assert differences(HEADER, changed(where, value)) == []


@pytest.mark.parametrize(
    ("where", "value", "line"),
    [
        ("environment/versions/torch", "2.13.0", 'environment versions.torch: "2.12.0", now "2.13.0"'),
        ("environment/versions/torch", DELETED, 'environment versions.torch: "2.12.0", now null'),
        ("environment/versions/jax", "0.5", 'environment versions.jax: null, now "0.5"'),
        ("environment/cpu_model", None, 'environment cpu_model: "A CPU", now null'),
        ("environment/accelerators", ["A GPU"], 'environment accelerators: [], now ["A GPU"]'),
        ("suite/seeds", 4, "suite seeds: 3, now 4"),
        ("suite/latency/max_slices", 20, "suite latency.max_slices: null, now 20"),
        ("suite/models", ["b"], 'suite models: ["*"], now ["b"]'),
        ("suite/models", [], 'suite models: ["*"], now []'),
        ("plugins/0/version", "1.1", 'plugins own.version: "1.0", now "1.1"'),
        ("plugins/1/failure", "it raises", 'plugins other.failure: null, now "it raises"'),
        ("pythons/new/python", "3.12.0", 'pythons new.python: "3.11.9", now "3.12.0"'),
        ("pythons/new/versions/numpy", "2.1", 'pythons new.versions.numpy: "2.0", now "2.1"'),
    ],
)
def test_a_change_is_one_line_that_says_what_it_was_and_is(where: str, value: Any, line: str) -> None:
    assert differences(HEADER, changed(where, value)) == [line]


def test_every_change_is_told() -> None:
    now = changed("environment/versions/torch", "2.13.0")
    now["suite"]["seeds"] = 4
    now["plugins"][0]["version"] = "1.1"
    assert [line.partition(":")[0] for line in differences(HEADER, now)] == [
        "suite seeds",
        "plugins own.version",
        "environment versions.torch",
    ]


def test_a_plugin_that_came_or_went_is_told_by_its_name() -> None:
    fewer = changed("plugins/1", DELETED)
    assert [line.partition(":")[0] for line in differences(HEADER, fewer)] == [
        "plugins other.name",
        "plugins other.distribution",
        "plugins other.version",
    ]
    assert differences(fewer, HEADER)[0] == 'plugins other.name: null, now "other"'


def test_plugins_in_another_order_are_the_same_plugins() -> None:
    assert differences(HEADER, changed("plugins", HEADER["plugins"][::-1])) == []


def test_of_two_plugins_with_one_name_both_are_held_against_what_they_were() -> None:
    own, other = HEADER["plugins"]
    before = changed("plugins", [own, other | {"name": "own"}])
    for place in (0, 1):
        now = copy.deepcopy(before)
        now["plugins"][place]["version"] = "9"
        assert len(differences(before, now)) == 1


def test_a_long_value_is_cut() -> None:
    (line,) = differences(HEADER, changed("suite/models", ["x" * 1000]))
    assert line.startswith('suite models: ["*"], now ["xxx')
    assert line.endswith("x...")
    assert len(line) < 2 * LONGEST_VALUE


@pytest.mark.parametrize(
    "trials",
    [[], HEADER["trials"][:1], HEADER["trials"][::-1], [*HEADER["trials"][:1], {"trial": "0002-latency", "seed": 1}]],
)
def test_a_run_of_other_trials_cannot_be_gone_on_with(trials: list[dict[str, Any]]) -> None:
    with pytest.raises(
        HarnessError, match=rf"^2 trials were planned, and now {len(trials)} others would be; start a new run$"
    ):
        differences(HEADER, changed("trials", trials))


def test_why_other_trials_would_be_planned_is_told_in_short() -> None:
    now = changed("trials", [])
    now["suite"] |= {"seeds": 9, "models": ["b"]}
    now["plugins"][0] |= {"version": "1.1", "distribution": "renamed"}
    with pytest.raises(HarnessError) as told:
        differences(HEADER, now)
    assert str(told.value) == (
        '2 trials were planned, and now 0 others would be (suite models: ["*"], now ["b"]; suite seeds: 3, now 9; '
        'plugins own.distribution: "rnn-own", now "renamed"); start a new run'
    )
