"""Number formats: how far rounding to one takes an array, and what a variant that computes in fewer bits may lose.

A runtime that computes in fewer bits than the arrays it is given says so (`harness.Runtime.compute_dtype`). It is held
against the same oracle as all others. What it may be off follows from its format, by the same rule as for the others:
the yardstick is the oracle with weights and inputs rounded to the format.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contract import COMPUTE_DTYPES

if TYPE_CHECKING:
    from harness.contract import FloatArray

EPSILONS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "int8": 1 / 127}
"""The step between two numbers of a format, relative to the lower end of its binade; of int8, to an array's largest.

Sources: bfloat16 has 8 significant bits and float16 (IEEE 754 binary16) 11; symmetric int8 maps the largest absolute
value of an array to 127 (ONNX, `QuantizeLinear`; Jacob et al., CVPR 2018, section 2.1).
"""
PEAK_FACTORS = {"bfloat16": 16.0, "float16": 16.0, "int8": 32.0}
"""How many times as many products a core can do in a format as in float32, at the most: a cycle of Intel's AMX does
1024 in bfloat16 or float16 and 2048 in int8, one of two AVX-512 units 64 operations in float32 (Intel 64 and IA-32
Architectures Optimization Reference Manual, chapter on AMX)."""
LEAST_SCORE = 0.99
"""Of the trainer's accuracy a reduced variant must keep this share, as MLPerf Inference asks of quantised models (99 %
of the reference's accuracy); of what a regression explains, as much may be lost."""
LEAST_AGREEMENT = 0.98
"""Of the test rows it must put this share into the class that the trainer puts them into; twice what may be lost, for
rows can change places without a loss."""

assert EPSILONS.keys() == PEAK_FACTORS.keys() == set(COMPUTE_DTYPES)


def epsilon(name: str) -> float:
    """The step of a format; see `EPSILONS`. Of a NumPy dtype, its machine epsilon."""
    return EPSILONS[name] if name in EPSILONS else float(np.finfo(name).eps)


def rounded(array: FloatArray, name: str) -> FloatArray:
    """The nearest numbers that a format has, as float64; of int8, on 255 steps around zero that fit the whole array.

    Ties go to even.
    """
    exact = np.asarray(array, np.float64)
    if name == "int8":
        step = float(np.abs(exact).max(initial=0.0)) / 127
        return np.asarray(np.rint(exact / step) * step if step else exact)
    if name == "bfloat16":
        fraction, exponent = np.frexp(exact)  # 0.5 <= |fraction| < 1, so 8 significant bits are 8 binary places
        return np.asarray(np.ldexp(np.rint(np.ldexp(fraction, 8)), exponent - 8))
    return exact.astype(name).astype(np.float64)


def accuracy_problem(
    kind: str, score: float, trainer_score: float, trivial_score: float, agreement: float | None
) -> str:
    """Why a reduced variant loses too much against the one whose weights it uses, in words; empty if it does not.

    Args:
        kind: the task's, `classification` or `regression`.
        score, trainer_score, trivial_score: accuracies (fractions), or mean squared errors.
        agreement: the share of test rows that get the trainer's class; None for regression.
    """
    if kind == "classification":
        if not score >= LEAST_SCORE * trainer_score:
            return f"its accuracy is {score:.4f}, less than {LEAST_SCORE:.0%} of the {trainer_score:.4f} of its trainer"
        if agreement is not None and not agreement >= LEAST_AGREEMENT:
            return f"it agrees with its trainer on {agreement:.1%} of the test rows, less than {LEAST_AGREEMENT:.0%}"
        return ""
    allowed = trainer_score + (1 - LEAST_SCORE) * trivial_score
    if not (score <= allowed or math.isclose(score, allowed)):
        return f"its mean squared error is {score:.4g}; its trainer's is {trainer_score:.4g}, {allowed:.4g} is allowed"
    return ""


def rounded_arrays(arrays: Any, name: str) -> Any:
    """`rounded`, of every array of a tuple; None stays None."""
    return None if arrays is None else tuple(rounded(array, name) for array in arrays)
