"""tanh and the logistic sigmoid of vectors, to a few units in the last place, without a call and without a branch.

Both rest on the exponential function, after Cody & Waite 1980, *Software Manual for the Elementary Functions*: with n
the whole number nearest to y / ln 2 and r = y - n ln 2, e^y = 2^n e^r. As |r| <= ln(2) / 2, few terms of the Taylor
series of e^r - 1 are enough; 2^n is put together from bits. ln 2 is split into a part whose product with n is exact and
the rest, so that nothing of r is lost.
"""

from __future__ import annotations

import math
from decimal import Decimal

from harness_jit.vector import FRACTION_BITS, Vector

# Per dtype: the terms of e^r - 1 that count at |r| = ln(2) / 2; up to where e^y and 1 / e^y are both normal numbers;
# and from where on tanh rounds to 1.
TERMS = {"float32": 7, "float64": 13}
MOST_EXPONENT = {"float32": 87.0, "float64": 708.0}
TANH_IS_ONE = {"float32": 10.0, "float64": 20.0}


def sigmoid(a: Vector) -> Vector:
    """1 / (1 + e^-a)."""
    most = MOST_EXPONENT[a.dtype]
    scale, grown = _exponential(-a.at_most(most).at_least(-most))
    return a.constant(1) / (grown.times_plus(scale, scale) + 1)


def tanh(a: Vector) -> Vector:
    """With m = e^(2|a|) - 1, tanh |a| = m / (m + 2); m is exact near zero, where e^(2|a|) would lose it."""
    size = abs(a).at_most(TANH_IS_ONE[a.dtype])
    scale, grown = _exponential(size + size)
    m = grown.times_plus(scale, scale - 1)
    return (m / (m + 2)).with_sign_of(a)


def _exponential(y: Vector) -> tuple[Vector, Vector]:
    """2^n and e^r - 1, so that e^y = 2^n (1 + (e^r - 1)); |y| is at most `MOST_EXPONENT`."""
    fraction = FRACTION_BITS[y.dtype]
    to_last_bits = 1.5 * 2.0**fraction  # a sum with it is rounded to a whole number, which its lowest bits then are
    exact = 2.0 ** (fraction - 10)  # n has up to ten bits and a sign
    ln_2_high = math.floor(math.log(2) * exact) / exact
    ln_2_low = float(Decimal(2).ln() - Decimal(ln_2_high))
    shifted = y.times_plus(1 / math.log(2), to_last_bits)
    n = shifted - to_last_bits
    r = n.times_plus(-ln_2_low, n.times_plus(-ln_2_high, y))
    *coefficients, series = (y.constant(1 / math.factorial(k)) for k in range(2, TERMS[y.dtype] + 1))
    for coefficient in reversed(coefficients):
        series = series.times_plus(r, coefficient)
    return shifted.power_of_two(), series.times_plus(r * r, r)
