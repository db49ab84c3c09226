"""`adding`: the adding problem."""

from __future__ import annotations

import numpy as np

from harness import Data, Split

TIME = 50
TRAIN_ROWS = 80_000  # 2,500 steps of 32
TEST_ROWS = 2_000


def load() -> Data:
    """80,000 generated rows to train on and 2,000 to test on; the same numbers on every call and machine."""
    return Data(sequences(TRAIN_ROWS, seed=1), sequences(TEST_ROWS, seed=2))


def sequences(rows: int, seed: int) -> Split:
    """Generate rows of the adding problem.

    x is (rows, 50, 2): a value drawn uniformly from 0..1, and a marker that is 1 at two steps and 0 elsewhere. One
    marked step lies in the first half and one in the second. The target (rows, 1) is the sum of the two marked values.
    Always answering 1 gives a mean squared error of 1/6.

    Source: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997, experiment 4, in the form of S. Bai,
    J. Z. Kolter and V. Koltun, arXiv 1803.01271, 2018 (two features, values in 0..1, one marker in each half).
    """
    draw = np.random.Generator(np.random.PCG64(seed)).random  # only this draw, so the rows outlive changes in NumPy
    half = TIME // 2
    every = np.arange(rows)
    x = np.zeros((rows, TIME, 2), np.float32)
    x[:, :, 0] = draw((rows, TIME))
    first = (draw(rows) * half).astype(np.int64)
    second = half + (draw(rows) * (TIME - half)).astype(np.int64)
    x[every, first, 1] = 1
    x[every, second, 1] = 1
    targets = x[every, first, :1] + x[every, second, :1]  # (rows, 1)
    return Split(x, targets)
