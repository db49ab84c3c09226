"""Estimates: what is paired with what, which level counts as a unit, and that intervals hold for known truths."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import stats
from harness.estimates import NOT_SUSTAINED, SUSTAINED, Key, Limit, latency, ratio, worker_limit

SECONDS = st.floats(1e-7, 1e3)
PLACES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4))
RUNTIME = 100  # processes of another runtime have numbers of their own


def key_of(slice_: int, process: int, instance: int) -> Key:
    """A process lies in one slice, and its number is unique in the run."""
    return slice_, 10 * slice_ + process, instance


def of_another_runtime(medians: Mapping[Key, float]) -> dict[Key, float]:
    return {(slice_, RUNTIME + process, instance): value for (slice_, process, instance), value in medians.items()}


MEDIANS = st.dictionaries(st.builds(lambda place: key_of(*place), PLACES), SECONDS, min_size=1, max_size=24)


def paired(value: stats.LogMean | None) -> stats.LogMean:
    assert value is not None
    return value


def same(one: stats.LogMean | None, other: stats.LogMean | None) -> bool:
    """Equal but for rounding: of logarithms up to 20."""
    if one is None or other is None:
        return one is other
    assert (one.units, one.unit, one.degrees_of_freedom) == (other.units, other.unit, other.degrees_of_freedom)
    assert one.mean == pytest.approx(other.mean, abs=1e-12)
    assert one.standard_error == pytest.approx(other.standard_error, abs=1e-12, nan_ok=True)
    return True


# ------------------------------------------------------------------------------------------------------- latency


@pytest.mark.parametrize("instances", [1, 2, 8])
def test_one_process_has_a_latency_and_no_error_however_many_instances_it_has(instances: int) -> None:
    """What another process would have changed is unknown, and two layouts do not tell."""
    found = latency({(1, 1, number): 0.25 if number % 2 else 4.0 for number in range(1, instances + 1)})
    assert found.mean == pytest.approx(math.log(0.25) if instances == 1 else 0.0)
    assert (found.units, found.unit) == (1, "process")
    assert math.isnan(found.standard_error)


def test_one_process_is_enough_for_a_ratio_within_it() -> None:
    found = paired(ratio({(1, 1, 1): 1.01, (1, 1, 2): 2.06}, {(1, 1, 1): 1.0, (1, 1, 2): 2.0}))
    assert (found.units, found.unit) == (2, "instance")
    assert found.mean == pytest.approx(math.log(1.01 * 1.03) / 2)


def test_where_processes_agree_every_instance_is_a_unit() -> None:
    """Five processes with the same mean: ten instances, whose logarithms are 0 and ln 4."""
    found = latency({key_of(s, 1, i): 1.0 if i == 1 else 4.0 for s in range(1, 6) for i in (1, 2)})
    assert (found.units, found.unit, found.degrees_of_freedom) == (10, "instance", 9)
    assert found.mean == pytest.approx(math.log(2))
    assert found.standard_error == pytest.approx(math.log(2) / 3)  # √(10 / 9) · ln 2 / √10


def test_where_processes_differ_by_more_than_their_instances_the_process_is_the_unit() -> None:
    found = latency({(1, 1, 1): 1.0, (1, 1, 2): 1.01, (2, 2, 1): 4.0, (2, 2, 2): 4.04})
    assert (found.units, found.unit, found.degrees_of_freedom) == (2, "process", 1)
    assert found.mean == pytest.approx(math.log(2) + math.log(1.01) / 2)
    assert found.standard_error == pytest.approx(math.log(4) / 2)


def test_two_processes_of_one_slice_are_two_processes() -> None:
    found = latency({(1, 1, 1): 1.0, (1, 1, 2): 1.01, (1, 2, 1): 4.0, (1, 2, 2): 4.04})
    assert (found.units, found.unit) == (2, "process")


def test_without_medians_there_is_no_latency() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        latency({})


@given(medians=MEDIANS.filter(lambda medians: len({process for _, process, _ in medians}) > 1))
def test_over_several_processes_the_latency_is_the_nested_mean_of_the_logarithms(medians: dict[Key, float]) -> None:
    processes = sorted({process for _, process, _ in medians})
    groups = [[math.log(value) for key, value in sorted(medians.items()) if key[1] == p] for p in processes]
    assert same(latency(medians), stats.nested_mean(groups))


@given(medians=MEDIANS, data=st.data())
def test_the_order_of_the_medians_does_not_matter(medians: dict[Key, float], data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(medians.items()))))
    assert same(latency(shuffled), latency(medians))
    other = of_another_runtime(medians)
    assert same(ratio(shuffled, other), ratio(medians, other))


# ------------------------------------------------------------------------------------------------------- ratios


@given(medians=MEDIANS, factor=st.floats(0.5, 2))
def test_a_factor_on_every_median_is_the_ratio_and_nothing_is_left_to_doubt(
    medians: dict[Key, float], factor: float
) -> None:
    """Whatever instances and processes did to the baseline, they did to both."""
    found = paired(ratio({key: factor * value for key, value in medians.items()}, medians))
    assert found.mean == pytest.approx(math.log(factor), abs=1e-12)
    if found.units > 1:
        assert found.standard_error == pytest.approx(0.0, abs=1e-12)


@given(own=MEDIANS, base=MEDIANS, data=st.data())
def test_what_an_instance_does_to_both_cancels(
    own: dict[Key, float], base: dict[Key, float], data: st.DataObject
) -> None:
    shared = sorted(own.keys() & base.keys())
    effects = {key: data.draw(st.floats(0.1, 10)) for key in own.keys() | base.keys()}
    moved = [{key: effects[key] * value for key, value in medians.items()} for medians in (own, base)]
    if shared:
        before, after = paired(ratio(own, base)), paired(ratio(moved[0], moved[1]))
        assert after.mean == pytest.approx(before.mean, abs=1e-9)


@given(medians=MEDIANS, data=st.data())
def test_what_a_slice_does_to_both_cancels_across_runtimes(medians: dict[Key, float], data: st.DataObject) -> None:
    effects = {slice_: data.draw(st.floats(0.1, 10)) for slice_ in range(1, 5)}
    other = {key: 2 * value for key, value in of_another_runtime(medians).items()}
    moved = [{key: effects[key[0]] * value for key, value in sides.items()} for sides in (medians, other)]
    before, after = paired(ratio(medians, other)), paired(ratio(moved[0], moved[1]))
    assert before.unit == after.unit == "slice"
    assert before.mean == pytest.approx(-math.log(2), abs=1e-12)
    assert after.mean == pytest.approx(-math.log(2), abs=1e-12)


@pytest.mark.parametrize("side_by_side", [True, False], ids=["within a runtime", "across runtimes"])
@given(own=MEDIANS, base=MEDIANS)
def test_swapping_both_turns_the_ratio_over(side_by_side: bool, own: dict[Key, float], base: dict[Key, float]) -> None:
    base = base if side_by_side else of_another_runtime(base)
    one, other = ratio(own, base), ratio(base, own)
    assert (one is None) == (other is None)
    if one and other:
        assert (one.units, one.unit) == (other.units, other.unit)
        assert one.mean == pytest.approx(-other.mean, abs=1e-12)
        assert one.standard_error == pytest.approx(other.standard_error, abs=1e-12, nan_ok=True)


@given(own=MEDIANS, base=MEDIANS)
def test_instances_that_only_one_side_has_do_not_touch_a_paired_ratio(
    own: dict[Key, float], base: dict[Key, float]
) -> None:
    shared = own.keys() & base.keys()
    if shared:
        assert same(ratio(own, base), ratio({k: own[k] for k in shared}, {k: base[k] for k in shared}))


def test_pairs_are_made_by_instance_and_not_by_place() -> None:
    own = {(2, 2, 1): 40.0, (1, 1, 2): 20.0, (1, 1, 1): 2.0}
    base = {(1, 1, 1): 1.0, (1, 1, 2): 10.0, (2, 2, 1): 20.0}
    found = paired(ratio(own, base))
    assert found.mean == pytest.approx(math.log(2))
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_paired_instances_are_the_units_unless_processes_differ() -> None:
    base = {key_of(s, 1, i): 0.1 * s for s in range(1, 6) for i in (1, 2)}
    agreeing = paired(ratio({key: value * (1.01 if key[2] == 1 else 1.03) for key, value in base.items()}, base))
    assert (agreeing.units, agreeing.unit) == (10, "instance")
    differing = paired(ratio({key: value * (key[0] + 0.001 * key[2]) for key, value in base.items()}, base))
    assert (differing.units, differing.unit) == (5, "process")


def test_across_runtimes_the_slice_is_the_unit_however_many_instances_it_holds() -> None:
    """In slice 1 twice as slow, in slice 2 eight times, by the geometric means of their instances."""
    own = {(1, 1, 1): 1.0, (1, 1, 2): 4.0, (2, 2, 1): 8.0}
    base = {(1, 101, 1): 1.0, (2, 102, 1): 0.5, (2, 102, 2): 2.0}
    found = paired(ratio(own, base))
    assert (found.units, found.unit, found.degrees_of_freedom) == (2, "slice", 1)
    assert found.mean == pytest.approx(math.log(4))
    assert found.standard_error == pytest.approx(math.log(4) / 2)


def test_a_slice_that_only_one_side_has_is_left_out() -> None:
    own = {(1, 1, 1): 2.0, (2, 2, 1): 1e9}
    base = {(1, 101, 1): 1.0, (3, 103, 1): 1e-9}
    found = paired(ratio(own, base))
    assert (found.mean, found.units) == (math.log(2), 1)
    assert math.isnan(found.standard_error)


def test_who_tried_again_in_a_process_of_its_own_is_paired_by_slice() -> None:
    """The worker died; in the same slice the two were timed apart. Nothing was shared, so slices are all there is."""
    own = {(1, 2, 1): 3.0, (1, 2, 2): 3.0, (2, 5, 1): 6.0, (2, 5, 2): 6.0}
    base = {(1, 3, 1): 1.0, (1, 3, 2): 1.0, (2, 6, 1): 2.0, (2, 6, 2): 2.0}
    found = paired(ratio(own, base))
    assert (found.units, found.unit) == (2, "slice")
    assert found.mean == pytest.approx(math.log(3))
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_a_slice_in_which_they_were_timed_apart_does_not_loosen_the_pairs_of_the_others() -> None:
    own = {(1, 1, 1): 2.0, (2, 2, 1): 2.0, (3, 3, 1): 1e6}
    base = {(1, 1, 1): 1.0, (2, 2, 1): 1.0, (3, 4, 1): 1.0}
    found = paired(ratio(own, base))
    assert (found.units, found.unit) == (2, "process")
    assert found.mean == pytest.approx(math.log(2))


def test_what_has_no_slice_in_common_has_no_ratio() -> None:
    assert ratio({(1, 1, 1): 1.0}, {(2, 2, 1): 1.0}) is None
    assert ratio({}, {(2, 2, 1): 1.0}) is None


# ------------------------------------------------------------------------------------------------------- coverage


@pytest.mark.parametrize("layout", [0.02, 0.001], ids=["layout matters", "layout does not"])
@pytest.mark.parametrize("side_by_side", [True, False], ids=["within a runtime", "across runtimes"])
def test_the_interval_of_a_ratio_holds_the_truth_about_19_times_of_20(side_by_side: bool, layout: float) -> None:
    """Two thousand runs of 5 slices with 4 instances, whose processes differ by 4 %; the truth is 2 % slower."""
    rng = np.random.default_rng([side_by_side, round(1000 * layout)])
    runs, held = 2000, 0
    for _ in range(runs):
        moments = rng.normal(0, 0.05, 5)
        processes = rng.normal(0, 0.04, (2, 5))
        logs = moments[:, None] + rng.normal(0, layout, (2, 5, 4))
        logs += (processes[:1] if side_by_side else processes)[..., None]
        own, base = (
            {key_of(s + 1, 1, i + 1): math.exp(side[s, i]) for s in range(5) for i in range(4)} for side in logs
        )
        own = {key: 1.02 * value for key, value in own.items()}
        interval = stats.estimate(paired(ratio(own, base if side_by_side else of_another_runtime(base))))
        held += interval.low <= 1.02 <= interval.high
    assert 0.935 < held / runs < 0.985  # pairs err on the wide side, see `stats.nested_mean`


def test_side_by_side_a_difference_is_seen_that_processes_hide_from_those_measured_apart() -> None:
    rng = np.random.default_rng(3)
    processes = np.exp(rng.normal(0, 0.04, (2, 5)))
    layouts = np.exp(rng.normal(0, 0.005, (2, 5, 4)))
    base = {key_of(s + 1, 1, i + 1): processes[0, s] * layouts[0, s, i] for s in range(5) for i in range(4)}
    own = {key_of(s + 1, 1, i + 1): 1.02 * processes[0, s] * layouts[1, s, i] for s in range(5) for i in range(4)}
    apart = {key_of(s + 1, 2, i + 1): 1.02 * processes[1, s] * layouts[1, s, i] for s in range(5) for i in range(4)}
    assert stats.p_different(paired(ratio(own, base))) < 1e-4
    assert stats.p_different(paired(ratio(apart, base))) > 0.05


def test_the_limit_of_a_worker_has_the_lowest_load_above_it_that_was_not_sustained() -> None:
    tried = [(100.0, SUSTAINED), (80.0, NOT_SUSTAINED), (200.0, NOT_SUSTAINED), (120.0, NOT_SUSTAINED)]
    rows = [{"rate_per_s": rate, "streams": None, "verdict": verdict} for rate, verdict in tried]
    assert worker_limit(rows) == Limit(100.0, 120.0)
    assert worker_limit(rows[:2]) == Limit(100.0, math.inf)
    confirmed = [{"rate_per_s": 95.0, "streams": None, "verdict": SUSTAINED, "is_confirmation": True}]
    assert worker_limit([*rows, *confirmed]) == Limit(95.0, 120.0)
    assert Limit(95.0, 120.0).step == pytest.approx(math.log(120 / 95))
    assert math.isinf(Limit(0.0, 120.0).step)
