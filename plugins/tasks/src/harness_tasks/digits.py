"""`digits-rows`: scikit-learn's 8x8 digits, read row by row."""

from __future__ import annotations

import numpy as np

from harness import Data, Split

TEST_ROWS = 360
SPLIT_SEED = 0


def load() -> Data:
    """The 1,797 images that scikit-learn carries: 1,437 to train on and 360 to test on.

    x is (N, 8, 8), one row of pixels a step, top to bottom, pixels in 0..1. The data set has no official split. This
    one is stratified (every digit has the same share of both parts) and drawn once with the seed `SPLIT_SEED`.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (its test part).
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

    digits = load_digits()
    x = np.ascontiguousarray(digits.images / 16, dtype=np.float32)  # pixels are 0..16
    targets = digits.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(x)), test_size=TEST_ROWS, stratify=targets, random_state=SPLIT_SEED)
    everything = Split(x, targets)
    return Data(everything.rows(train), everything.rows(test))
