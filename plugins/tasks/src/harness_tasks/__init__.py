"""Tasks for rnn-harness: what a recurrent layer is trained on and scored by.

Importing this package imports no NumPy; a task's module is imported when its data is loaded.
"""

from __future__ import annotations

from pathlib import Path

import harness
from harness import Data, Recipe, Task

harness_contract = 1


def _digits_rows(data_dir: Path | None) -> Data:
    from harness_tasks.digits import load

    return load()


def _mnist_rows(data_dir: Path | None) -> Data:
    from harness_tasks.mnist import load

    return load(data_dir)


def _adding(data_dir: Path | None) -> Data:
    from harness_tasks.adding import load

    return load()


def _temporal_order(data_dir: Path | None) -> Data:
    from harness_tasks.temporal_order import load

    return load()


def _japanese_vowels(data_dir: Path | None) -> Data:
    from harness_tasks.japanese_vowels import load

    return load(data_dir)


@harness.hookimpl
def harness_tasks() -> list[Task]:
    return [
        Task(
            name="digits-rows",
            kind="classification",
            input_size=8,
            time=8,
            outputs=10,
            load=_digits_rows,
            recipe=Recipe(hidden_size=32, learning_rate=1e-2, epochs=15),
            description="8x8 digits read row by row; no download",
        ),
        Task(
            name="mnist-rows",
            kind="classification",
            input_size=28,
            time=28,
            outputs=10,
            load=_mnist_rows,
            recipe=Recipe(),
            description="MNIST read row by row, one epoch",
        ),
        Task(
            name="adding",
            kind="regression",
            input_size=2,
            time=50,
            outputs=1,
            load=_adding,
            recipe=Recipe(clip_norm=1.0),
            description="the sum of two marked values among 50",
        ),
        Task(
            name="temporal-order",
            kind="classification",
            input_size=8,
            time=60,
            outputs=4,
            load=_temporal_order,
            recipe=Recipe(hidden_size=32, batch_size=64, clip_norm=0.25),
            description="the order of two symbols among noise, with the model's own initialisation",
        ),
        Task(
            name="temporal-order-forget-bias",
            kind="classification",
            input_size=8,
            time=60,
            outputs=4,
            load=_temporal_order,
            recipe=Recipe(hidden_size=32, batch_size=64, clip_norm=0.25, forget_bias=1.0),
            description="the same data as temporal-order, with 1 added to the forget gate's bias",
        ),
        Task(
            name="japanese-vowels",
            kind="classification",
            input_size=12,
            time=29,
            outputs=9,
            load=_japanese_vowels,
            recipe=Recipe(hidden_size=64, epochs=50, learning_rate=3e-3, clip_norm=1.0),
            description="which of nine speakers said a vowel; rows of 7 to 29 steps",
            ragged=True,
        ),
    ]
