"""`temporal-order`: which of X and Y came, and in which order, among noise."""

from __future__ import annotations

import numpy as np

from harness import Data, Split

SYMBOLS = "EBabcdXY"  # start, end, four noise letters, the two that matter
TIME = 60
EARLY = (14, 20)  # first and last step at which the first X or Y may stand; steps count from 0
LATE = (32, 38)  # the same for the second
TRAIN_ROWS = 51_200  # 800 steps of 64
TEST_ROWS = 2_000


def load() -> Data:
    """Generated rows to train on and to test on; the same symbols on every call and machine."""
    return Data(sequences(TRAIN_ROWS, seed=1), sequences(TEST_ROWS, seed=2))


def sequences(rows: int, seed: int) -> Split:
    """Generate rows of the temporal order problem.

    x is (rows, 60, 8), one-hot in the order of `SYMBOLS`: E, then noise letters, then B. An X or a Y replaces the noise
    at one step in `EARLY` and one in `LATE`. The target (rows,) is the class of that pair:
    0 for X X, 1 for X Y, 2 for Y X, 3 for Y Y.

    Source: S. Hochreiter and J. Schmidhuber, Long Short-Term Memory, 1997, experiment 6a. There a row has 100 to 110
    symbols, with X or Y at 10..20 and 50..60. Here it has 60, with X or Y at 14..20 and 32..38: nearer each other,
    so that more seeds are solved with a forget bias of 1, and the second 21 to 27 steps before the last.
    """
    draw = np.random.Generator(np.random.PCG64(seed)).random  # only this draw, so the rows outlive changes in NumPy
    every = np.arange(rows)
    symbols = SYMBOLS.index("a") + (draw((rows, TIME)) * 4).astype(np.int64)
    symbols[:, 0] = SYMBOLS.index("E")
    symbols[:, -1] = SYMBOLS.index("B")
    targets = np.zeros(rows, np.int64)
    for first, last in (EARLY, LATE):
        step = first + (draw(rows) * (last - first + 1)).astype(np.int64)
        is_y = (draw(rows) * 2).astype(np.int64)
        symbols[every, step] = SYMBOLS.index("X") + is_y
        targets = 2 * targets + is_y
    x = np.zeros((rows, TIME, len(SYMBOLS)), np.float32)
    np.put_along_axis(x, symbols[:, :, None], 1, axis=2)
    return Split(x, targets)
