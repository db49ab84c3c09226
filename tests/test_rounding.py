"""Number formats: what rounding to them does, what they are worth, and what may be lost in them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from harness.architectures import LSTM
from harness.contract import COMPUTE_DTYPES, LayerSize
from harness.parity import Case, case_inputs, equations, probe_weights
from harness.rounding import EPSILONS, accuracy_problem, epsilon, rounded, rounded_arrays

VALUES = arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e4, 1e4, allow_subnormal=False))
FLOATS = ("bfloat16", "float16")


@given(VALUES, st.sampled_from(FLOATS))
def test_a_float_is_off_by_at_most_half_a_step_of_its_own_size(values: np.ndarray, name: str) -> None:
    least = 2.0**-14 if name == "float16" else 0.0  # below it half precision has fewer bits
    off = np.abs(rounded(values, name) - values)
    assert np.all(off <= EPSILONS[name] / 2 * np.maximum(np.abs(values), least))


@given(VALUES)
def test_an_int8_is_off_by_at_most_half_a_step_of_the_largest(values: np.ndarray) -> None:
    largest = np.abs(values).max()
    steps = rounded(values, "int8")
    assert np.all(np.abs(steps - values) <= EPSILONS["int8"] / 2 * largest * (1 + 1e-12))
    assert len(np.unique(steps)) <= 255


@given(VALUES, st.sampled_from(FLOATS))
def test_what_is_rounded_stays_and_a_sign_is_no_matter(values: np.ndarray, name: str) -> None:
    once = rounded(values, name)
    assert np.array_equal(rounded(once, name), once)
    assert np.array_equal(rounded(-values, name), -once)


def test_bfloat16_is_the_upper_half_of_a_float32_with_ties_to_even() -> None:
    exact = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, 3.14159265, -0.1, 65280.0, 0.0])
    expected = [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, 3.140625, -0.10009765625, 65280.0, 0.0]
    assert rounded(exact, "bfloat16").tolist() == expected


def test_what_is_behind_a_rows_end_does_not_stretch_the_scale() -> None:
    size, weights = LayerSize(3, 4), probe_weights(LSTM, LayerSize(3, 4))
    session = equations(LSTM, weights, size, "float32", "int8")
    inputs = case_inputs(Case(3, 5, state=False, padding=True), LSTM, size, "float32")
    lengths = np.asarray(inputs.lengths)[:, None, None]
    wild = replace(inputs, x=np.where(np.arange(5)[:, None] < lengths, inputs.x, 1e6))
    answers = [session.fetch(session.run(session.prepare(given))) for given in (inputs, wild)]
    assert np.array_equal(answers[0].y, answers[1].y)


def test_zeros_stay_zeros_in_every_format() -> None:
    for name in COMPUTE_DTYPES:
        assert not rounded(np.zeros((2, 3)), name).any()
        assert rounded(np.zeros((0, 3)), name).shape == (0, 3)


def test_a_dtype_of_numpy_has_numpys_epsilon_and_the_formats_have_their_own() -> None:
    assert epsilon("float32") == np.finfo("float32").eps
    assert epsilon("float16") == np.finfo("float16").eps
    assert (epsilon("bfloat16"), epsilon("int8")) == (1 / 128, 1 / 127)


def test_a_state_is_rounded_part_by_part_and_none_stays_none() -> None:
    assert rounded_arrays(None, "int8") is None
    small, large = rounded_arrays((np.array([0.1, 1.0]), np.array([0.1, 100.0])), "int8")
    assert math.isclose(small[0], 13 / 127)  # on the steps of its own array
    assert large[0] == 0.0


@pytest.mark.parametrize(
    ("score", "agreement", "problem"),
    [
        (0.9, 1.0, ""),
        (0.95, 1.0, ""),  # better by chance is no fault
        (0.892, 0.98, ""),
        (0.8909, 1.0, "its accuracy is 0.8909, less than 99% of the 0.9000 of its trainer"),
        (math.nan, 1.0, "its accuracy is nan, less than 99% of the 0.9000 of its trainer"),
        (0.9, 0.979, "it agrees with its trainer on 97.9% of the test rows, less than 98%"),
    ],
)
def test_a_classifier_keeps_its_accuracy_and_its_classes(score: float, agreement: float, problem: str) -> None:
    assert accuracy_problem("classification", score, 0.9, 0.1, agreement) == problem


@pytest.mark.parametrize(
    ("score", "is_fine"), [(0.0, True), (0.02, True), (0.0217, True), (0.0218, False), (math.nan, False)]
)
def test_a_regression_loses_at_most_a_hundredth_of_what_the_mean_leaves(score: float, is_fine: bool) -> None:
    problem = accuracy_problem("regression", score, 0.02, 0.17, None)
    assert (problem == "") == is_fine
    if not is_fine:
        assert problem.endswith("its trainer's is 0.02, 0.0217 is allowed")
