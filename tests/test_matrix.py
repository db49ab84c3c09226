"""A matrix: a column for every set of versions, each latency held against the nearest to its left."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import ENVIRONMENT, Timed, five, process_row, write_run

from harness import HarnessError
from harness.attempts import MEASURED, NOT_IMPORTED, NOT_INSTALLED, Attempt
from harness.compare import compare
from harness.history import Meant
from harness.matrix import Matrix, Measured, matrix, measured
from harness.sides import Point
from harness.store import RunFolder, load

A, B = "a@r", "b@r"
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def run(
    path: Path,
    versions: dict[str, str],
    *variants: Timed,
    day: int = 0,
    attempt: Attempt | None = None,
    header: dict[str, Any] | None = None,
    **facts: Any,
) -> Measured:
    """What was measured with these versions, in five processes of a quiet machine."""
    environment = ENVIRONMENT | {"started_utc": (FIRST + timedelta(days=day)).isoformat()} | facts
    environment |= {"versions": {"rnn-harness": "0.1.0", **versions}}
    quiet = [process_row(slice_) for slice_ in range(1, 6)]
    write_run(path, *variants, processes=quiet, environment=environment, **(header or {}))
    return measured(load(path), attempt)


def took(tmp_path: Path, versions: dict[str, float], spread: float = 0.001) -> list[Measured]:
    """Runs of one variant, by the version of `lib` and the seconds a call takes with it."""
    return [run(tmp_path / v, {"lib": v}, Timed(A, five(s, spread))) for v, s in versions.items()]


def attempt(path: Path, *requirements: str, day: int = 0, **changes: Any) -> Attempt:
    began = FIRST + timedelta(days=day)
    return replace(Attempt(path, began, requirements, NOT_INSTALLED, "there is none"), **changes)


def labels(found: Matrix) -> list[str]:
    return [column.label for column in found.columns]


def point_of(found: Matrix, variant: str = A) -> Point:
    (point,) = [point for point in found.rows if point.variant == variant]
    return point


def verdicts(found: Matrix, variant: str = A) -> list[str]:
    return [cell.row.verdict if cell.row else "" for cell in found.rows[point_of(found, variant)]]


def test_columns_stand_in_the_order_of_their_versions_whatever_the_order_of_their_runs(tmp_path: Path) -> None:
    found = matrix(took(tmp_path, {"1.10": 0.002, "1.9": 0.001, "2.0": 0.004, "2.0rc1": 0.003}), [])
    assert labels(found) == ["lib 1.9", "lib 1.10", "lib 2.0rc1", "lib 2.0"]
    assert found.factors == ("lib",)
    values = [cell.latency.value for cell in found.rows[point_of(found)] if cell.latency]
    assert values == pytest.approx([0.001, 0.002, 0.003, 0.004])


def test_a_latency_is_that_of_the_runs_own_table_and_its_ratio_that_of_two_runs(tmp_path: Path) -> None:
    runs = took(tmp_path, {"1": 0.001, "2": 0.002, "3": 0.001}, spread=0.01)
    cells = matrix(runs, []).rows[point_of(matrix(runs, []))]
    for place in (1, 2):
        old, new = (load(runs[at].side.path) for at in (place - 1, place))
        (row,) = [row for row in compare(old, new).rows if row.point.boundary == "compute"]
        cell = cells[place]
        own = new.latency.set_index("boundary").loc["compute"]
        assert cell.row
        assert cell.latency
        assert cell.against == place - 1
        assert replace(cell.row, verdict="") == replace(row, verdict="")
        assert (cell.latency.value, cell.latency.low, cell.latency.high) == tuple(
            own[name] for name in ("latency_s", "latency_low_s", "latency_high_s")
        )
    assert (cells[0].row, cells[0].against) == (None, None)
    assert verdicts(matrix(runs, [])) == ["", "slower", "faster"]


SURE_ALONE = 1e-3 * math.exp(2.5 * 0.02)  # 2.5 standard errors off: 5 % is enough for one verdict, and not for two


def test_verdicts_hold_over_all_ratios_that_are_shown_and_no_others(tmp_path: Path) -> None:
    both = [
        run(tmp_path / v, {"lib": v}, Timed(A, five(s, 0.02)), Timed(B, five(0.001, 0.02)))
        for v, s in (("1", 0.001), ("2", SURE_ALONE))
    ]
    assert verdicts(matrix(both, [])) == ["", "undecided"]
    assert verdicts(matrix(both, [], Meant([A]))) == ["", "slower"]
    three = [*both, run(tmp_path / "3", {"lib": "3"}, Timed(A, five(SURE_ALONE, 0.02)))]
    assert verdicts(matrix(three, [], Meant([A]))) == ["", "undecided", "undecided"]


def test_where_the_left_neighbour_has_no_latency_the_nearest_that_has_one_is_taken(tmp_path: Path) -> None:
    bad = Timed(A, five(0.009), status="wrong", reason="off by one")
    runs = [*took(tmp_path, {"1": 0.001, "3": 0.002}), run(tmp_path / "2", {"lib": "2"}, bad)]
    found = matrix(runs, [attempt(tmp_path / "2.5", "lib==2.5")])
    cells = found.rows[point_of(found)]
    assert labels(found) == ["lib 1", "lib 2", "lib==2.5", "lib 3"]
    assert [(cell.status, cell.reason) for cell in cells] == [
        ("", ""),
        ("wrong", "off by one"),
        (NOT_INSTALLED, "there is none"),
        ("", ""),
    ]
    assert cells[3].against == 0
    assert cells[3].row
    assert cells[3].row.estimate.value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("failed", "status", "reason"),
    [
        ([{"name": "p", "distribution": "rnn-sound", "failure": "no lib"}], "plugin failed", "plugin 'p': no lib"),
        ([{"name": "p", "distribution": "another", "failure": "no lib"}], "not in it", ""),
        ([], "not in it", ""),
    ],
)
def test_a_row_that_a_run_never_planned_says_whether_its_plugin_failed_to_load(
    tmp_path: Path, failed: list[dict[str, str]], status: str, reason: str
) -> None:
    whole = run(tmp_path / "1", {"lib": "1"}, Timed(A, five(0.001)), Timed(B, five(0.001)))
    part = run(tmp_path / "2", {"lib": "2"}, Timed(B, five(0.001)), header={"plugins": failed})
    cell = matrix([whole, part], []).rows[point_of(matrix([whole, part], []))][1]
    assert (cell.status, cell.reason) == (status, reason)


def test_of_the_same_versions_the_newest_run_is_shown_and_the_older_is_named(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / f"{day}", {"lib": "1"}, Timed(A, five(0.001 * (1 + day))), day=day, commit=f"c{day}")
        for day in (2, 0, 1)
    ]
    found = matrix(runs, [])
    assert [column.path.name for column in found.columns] == ["2"]
    assert {path.name: why for path, why in found.superseded.items()} == {
        "0": f"{tmp_path / '1'} has the same versions and is newer",
        "1": f"{tmp_path / '2'} has the same versions and is newer",
    }


def test_a_newer_run_that_lacks_a_row_does_not_hide_an_older_one_of_the_same_versions(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", {"lib": "1"}, Timed(A, five(0.001)), Timed(B, five(0.001)))
    part = run(tmp_path / "part", {"lib": "1"}, Timed(A, five(0.001)), day=1)
    cut = run(tmp_path / "cut", {"lib": "1"}, Timed(A, five(0.001)), Timed(B, {}, status="skipped"), day=2)
    found = matrix([whole, part, cut], [])
    assert [column.path.name for column in found.columns] == ["whole"]
    why = f"{tmp_path / 'whole'} has the same versions and rows that it lacks"
    assert found.superseded == {part.side.path: why, cut.side.path: why}
    assert [column.path.name for column in matrix([whole, part, cut], [], Meant([A])).columns] == ["cut"]


@pytest.mark.parametrize("pair", [("1.31", "2.4"), ("1.32", "2.0")])
def test_a_latency_is_compared_where_the_fewest_versions_changed(tmp_path: Path, pair: tuple[str, str]) -> None:
    """The columns of this project's own tox.ini: four of one library, and one more with another version of a second."""
    runs = []
    for ort, numpy in [("1.22", "2.4"), ("1.27", "2.4"), ("1.32", "2.4"), pair]:
        requirement = f"ort=={ort}" if numpy == "2.4" else f"numpy=={numpy}"
        path, versions = tmp_path / f"{ort}-{numpy}", {"ort": ort, "numpy": numpy}
        named = {"ort": ort} if numpy == "2.4" else {"numpy": numpy}
        made = attempt(path, requirement, outcome=MEASURED, reason="", versions=named)
        runs.append(run(path, versions, Timed(A, five(0.001)), attempt=made))
    failed = attempt(tmp_path / "x", "ort==1.29.*")
    found = matrix(runs, [failed])
    cells = found.rows[point_of(found)]
    against = [None if cell.against is None else labels(found)[cell.against] for cell in cells]
    if pair[1] == "2.4":
        assert labels(found) == ["ort 1.22", "ort 1.27", "ort==1.29.*", "ort 1.31", "ort 1.32"]
        assert against == [None, "ort 1.22", None, "ort 1.27", "ort 1.31"]
    else:
        own = [f"ort {ort}, numpy 2.4" for ort in ("1.22", "1.27", "1.32")]
        assert labels(found) == [own[0], own[1], "ort==1.29.*", own[2], "ort 1.32, numpy 2.0"]
        assert against == [None, own[0], None, own[1], own[2]]


def test_who_is_not_beside_it_is_taken_if_less_changed_between_them(tmp_path: Path) -> None:
    runs = []
    for one, other in (("1", "2"), ("2", "2"), ("1", "1"), ("2", "1")):
        path, versions = tmp_path / f"{one}-{other}", {"one": one, "other": other}
        requirements = (f"one=={one}", f"other=={other}")
        made = attempt(path, *requirements, outcome=MEASURED, reason="", versions=versions)
        runs.append(run(path, versions, Timed(A, five(0.001)), attempt=made))
    found = matrix(runs, [])
    assert labels(found) == ["one 1, other 2", "one 2, other 2", "one 1, other 1", "one 2, other 1"]
    assert [cell.against for cell in found.rows[point_of(found)]] == [None, 0, 0, 2]


def test_an_attempt_that_failed_counts_until_a_newer_one_asks_for_the_same(tmp_path: Path) -> None:
    made = attempt(tmp_path / "1.9", "lib==1.*", day=1, outcome=MEASURED, reason="", versions={"lib": "1.9"})
    runs = [run(tmp_path / "1.9", {"lib": "1.9"}, Timed(A, five(0.001)), attempt=made)]
    before, after = attempt(tmp_path / "x", "lib==1.*"), attempt(tmp_path / "y", "lib==1.*", day=2)
    assert labels(matrix(runs, [before])) == ["lib 1.9"]
    assert list(matrix(runs, [before]).superseded) == [before.path]
    assert labels(matrix(runs, [after])) == ["lib==1.*", "lib 1.9"]
    assert labels(matrix(runs, [before, after])) == ["lib==1.*", "lib 1.9"]


def test_only_what_was_asked_for_heads_a_column_where_that_tells_columns_apart(tmp_path: Path) -> None:
    runs = []
    for number, also in (("1", "7"), ("2", "8")):
        made = attempt(tmp_path / number, f"Li.b=={number}", outcome=MEASURED, reason="", versions={"Li.b": number})
        runs.append(run(made.path, {"also": also}, Timed(A, five(0.001)), attempt=made))
    found = matrix(runs, [])
    assert (found.factors, labels(found)) == (("li-b",), ["li-b 1", "li-b 2"])
    assert [change.what for change in found.changes[1]] == ["version of also", "version of li-b"]
    third = run(tmp_path / "3", {"also": "9", "li-b": "2"}, Timed(A, five(0.001)))
    found = matrix([*runs, third], [])
    assert labels(found) == ["li-b 1, also 7", "li-b 2, also 8", "li-b 2, also 9"]


def test_the_library_that_was_asked_for_first_varies_beside_each_version_of_the_other(tmp_path: Path) -> None:
    runs = []
    for zeta in ("1", "2"):
        for alpha in ("10", "9"):
            path, versions = tmp_path / f"{zeta}-{alpha}", {"zeta": zeta, "alpha": alpha}
            requirements = (f"zeta=={zeta}", f"alpha=={alpha}")
            made = attempt(path, *requirements, outcome=MEASURED, reason="", versions=versions)
            runs.append(run(path, versions, Timed(A, five(0.001)), attempt=made))
    failed = attempt(tmp_path / "x", "zeta==1", "alpha==9.5")
    assert labels(matrix(runs, [failed])) == [
        "zeta 1, alpha 10",
        "zeta 2, alpha 10",
        "zeta 1, alpha 9",
        "zeta 2, alpha 9",
        "zeta==1, alpha==9.5",
    ]


def test_a_version_that_was_installed_and_cannot_be_imported_is_headed_with_the_exact_one(tmp_path: Path) -> None:
    failed = attempt(tmp_path / "x", "lib==0.*", outcome=NOT_IMPORTED, versions={"lib": "0.7.3"})
    assert labels(matrix(took(tmp_path, {"1": 0.001}), [failed])) == ["lib 0.7.3", "lib 1"]


def test_a_library_that_only_some_runs_have_and_pythons_own_version_are_versions_too(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "0", {}, Timed(A, five(0.001))),
        run(tmp_path / "1", {"lib": "1"}, Timed(A, five(0.001)), python="3.12.1"),
        run(tmp_path / "2", {"lib": "1"}, Timed(A, five(0.001))),
    ]
    assert labels(matrix(runs, [])) == ["lib 1, python 3.11.9", "lib 1, python 3.12.1", "no lib, python 3.11.9"]


def test_everything_that_differs_from_the_column_before_is_told_however_many_versions_that_is(tmp_path: Path) -> None:
    old, new = (
        run(tmp_path / v, {"lib": v, "other": v, "still": "5"}, Timed(A, five(0.001)), commit=f"c{v}")
        for v in ("1", "2")
    )
    found = matrix([old, new], [attempt(tmp_path / "x", "lib==1.5")])
    assert labels(found) == ["lib 1", "lib==1.5", "lib 2"]
    told = ["commit: c1 | c2", "version of lib: 1 | 2", "version of other: 1 | 2"]
    assert {place: list(map(str, own)) for place, own in found.changes.items()} == {2: told}


def test_runs_of_two_machines_are_refused_and_what_differs_is_named_unless_it_is_allowed(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "1", {"lib": "1"}, Timed(A, five(0.001))),
        run(tmp_path / "2", {"lib": "2"}, Timed(A, five(0.001)), cpu_model="Another CPU"),
    ]
    with pytest.raises(HarnessError, match=r"not of one machine: cpu_model: A CPU \| Another CPU; --allow-different "):
        matrix(runs, [])
    found = matrix(runs, [], allow_different=True)
    (comparison,) = found.comparisons.values()
    for differences in (comparison.differences, found.differences[1]):
        assert [str(each) for each in differences] == ["cpu_model: A CPU | Another CPU"]
    assert set(found.differences) == {1}


def test_a_run_with_more_than_one_set_of_versions_or_none_is_no_column(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="several interpreters"):
        run(tmp_path / "a", {}, Timed(A, five(0.001)), header={"pythons": {"old": {}, "new": {}}})
    with pytest.raises(HarnessError, match="does not say when it began"):
        run(tmp_path / "b", {}, Timed(A, five(0.001)), started_utc=None)
    path = run(tmp_path / "c", {}, Timed(A, five(0.001))).side.path
    folder, _ = RunFolder.reopen(path)
    folder.append({"resumed": {"started_utc": "", "command": [], "versions": {}, "changed": ["lib: 1 | 2"]}})
    folder.close()
    with pytest.raises(HarnessError, match="gone on with after something had changed"):
        measured(load(path), None)
    environment = ENVIRONMENT | {"started_utc": FIRST.isoformat(), "versions": None}
    with pytest.raises(HarnessError, match="does not say which versions"):
        measured(load(write_run(tmp_path / "d", Timed(A, five(0.001)), environment=environment)), None)


def test_versions_that_are_no_texts_have_a_place_all_the_same(tmp_path: Path) -> None:
    odd: Any = {"lib": ["<b>", "\x1b"], "other": None}
    runs = [*took(tmp_path, {"1": 0.001}), run(tmp_path / "odd", odd, Timed(A, five(0.001)))]
    assert labels(matrix(runs, [])) == ["lib 1, no other", "lib ['<b>', '\\x1b'], other None"]


@pytest.mark.parametrize("requirement", ["|nonsense|", "lib==1.5; python_version < '3'"])
def test_a_requirement_that_cannot_be_read_or_is_not_meant_for_here_heads_its_own_column_alone(
    tmp_path: Path, requirement: str
) -> None:
    made = [attempt(tmp_path / v, f"lib=={v}", outcome=MEASURED, versions={"lib": v}) for v in ("1", "2")]
    runs = [run(own.path, dict(own.versions), Timed(A, five(0.001)), attempt=own) for own in made]
    found = matrix(runs, [attempt(tmp_path / "x", requirement)])
    assert sorted(labels(found)) == sorted(["lib 1", "lib 2", requirement])
    assert found.factors == ("lib",)


def test_two_columns_that_would_be_headed_alike_are_numbered(tmp_path: Path) -> None:
    failed = attempt(tmp_path / "x", "lib==1.*", outcome=NOT_IMPORTED, versions={"lib": "1.9"})
    assert labels(matrix(took(tmp_path, {"1.9": 0.001}), [failed])) == ["lib 1.9 (1)", "lib 1.9 (2)"]
