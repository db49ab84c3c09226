"""Gradient parity: an exact training step passes in both kinds of loss, and every known mistake is rejected."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from strangers import TINY, TRAINING_MISTAKES, PlainRuntime, PlainTrainer, plain_model

from harness import LayerSize, Model, Recipe, SessionOptions
from harness.contract import TaskKind
from harness.engine.accuracy import training_batches
from harness.gradients import GradientCheck, check_gradients, check_timed_trainer, judge_gradients

if TYPE_CHECKING:
    from harness.contract import FloatArray

KINDS: tuple[TaskKind, ...] = ("classification", "regression")
SIZES = (LayerSize(3, 6), LayerSize(1, 2), LayerSize(8, 64))
PARTS = ["loss"] + [
    f"gradient of {name}"
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "head.weight", "head.bias")
]


@dataclass(frozen=True)
class Mistaken(PlainRuntime):
    """A runtime whose training step has one named mistake."""

    mistake: str = ""

    def open_trainer(
        self, model: Model, weights: Mapping[str, FloatArray], kind: TaskKind, recipe: Recipe, options: SessionOptions
    ) -> PlainTrainer:
        assert (recipe.optimizer, recipe.learning_rate, recipe.clip_norm) == ("sgd", 1.0, None)
        return PlainTrainer(weights, kind, recipe, self.mistake)


def observe(mistake: str, kind: TaskKind, size: LayerSize, model: Model | None = None) -> list[GradientCheck]:
    return check_gradients(model or plain_model(), Mistaken(mistake=mistake), kind, 4, SessionOptions(size))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_exact_training_step_is_right_and_every_array_was_looked_at(kind: TaskKind, size: LayerSize) -> None:
    checks = observe("", kind, size)
    assert judge_gradients(checks) == ""
    assert [check.what for check in checks] == PARTS
    assert (
        max(check.error / check.allowed for check in checks) < 0.3
    )  # far from the limit, so that a slower machine passes too


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mistake", TRAINING_MISTAKES)
def test_every_mistake_is_rejected(mistake: str, size: LayerSize, kind: TaskKind) -> None:
    if mistake == "loss in bits" and kind == "regression":
        pytest.skip("a squared error has no logarithm")
    reason = judge_gradients(observe(mistake, kind, size))
    assert reason.startswith("training step: ")
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("mistake", "part"),
    [
        ("bias_hh_l0 not trained", "gradient of bias_hh_l0"),
        ("weight_hh_l0 not trained", "gradient of weight_hh_l0"),
        ("head.weight not trained", "gradient of head.weight"),
        ("loss in bits", "loss"),
        ("loss after the step", "loss"),
        ("loss not finite", "loss"),
    ],
)
def test_a_mistake_in_one_part_is_found_in_that_part_alone(mistake: str, part: str) -> None:
    checks = observe(mistake, "classification", LayerSize(3, 6))
    assert [check.what for check in checks if not check.error <= check.allowed] == [part]
    assert f"training step: {part} is " in judge_gradients(checks)
    assert f"(1 of {len(PARTS)} checks failed)" in judge_gradients(checks)


def test_a_loss_that_is_not_finite_is_infinitely_wrong() -> None:
    loss, *_ = observe("loss not finite", "regression", LayerSize(3, 6))
    assert (loss.what, loss.error) == ("loss", math.inf)
    assert 0 < loss.allowed < math.inf


def test_a_model_with_parameters_of_its_own_is_compared_in_those() -> None:
    def merge(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """One bias, as cuDNN's ancestors and Keras have it: the sum of the two."""
        own = dict(weights)
        own["bias_ih_l0"] = own["bias_ih_l0"] + own.pop("bias_hh_l0")
        return own

    def split(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {**parameters, "bias_hh_l0": np.zeros_like(parameters["bias_ih_l0"])}

    @dataclass(frozen=True)
    class OneBias(PlainRuntime):
        def open_trainer(
            self,
            model: Model,
            weights: Mapping[str, FloatArray],
            kind: TaskKind,
            recipe: Recipe,
            options: SessionOptions,
        ) -> PlainTrainer:
            layer = {name: array for name, array in weights.items() if not name.startswith("head.")}
            head = {name: array for name, array in weights.items() if name.startswith("head.")}
            merged = split(merge(layer)) | head
            return PlainTrainer(merged, kind, recipe, "bias_hh_l0 not trained")

    model = plain_model("merged", to_parameters=merge, from_parameters=split)
    checks = check_gradients(model, OneBias(), "classification", 4, SessionOptions(LayerSize(3, 6)))
    assert "gradient of bias_hh_l0" not in [check.what for check in checks]
    assert judge_gradients(checks) == ""
    checks = check_gradients(plain_model(), OneBias(), "classification", 4, SessionOptions(LayerSize(3, 6)))
    assert "gradient of bias_hh_l0" in judge_gradients(checks)


def test_a_trainer_that_never_moves_anything_is_not_right_for_want_of_a_direction() -> None:
    checks = observe("no step", "classification", LayerSize(3, 6))
    failed = {check.what for check in checks if not check.error <= check.allowed}
    assert failed == set(PARTS) - {"loss"}


def trained(mistake: str = "", steps: int = 20) -> PlainTrainer:
    """A trainer of task `tiny` that has taken some steps without the mistake, and has it from then on."""
    model, runtime, options = plain_model(), PlainRuntime(), SessionOptions(LayerSize(3, 6))
    weights = dict(runtime.initial_weights(model, options.size, 0))
    rng = np.random.default_rng(0)
    weights |= {"head.weight": rng.standard_normal((2, 6)).astype(np.float32), "head.bias": np.zeros(2, np.float32)}
    trainer = runtime.open_trainer(model, weights, TINY.kind, TINY.recipe, options)
    for batch in training_batches(TINY, 1, steps, "float32"):
        trainer.step(trainer.prepare(batch))
    trainer._mistake = mistake
    return trainer


def checked_after_timing(trainer: PlainTrainer) -> list[GradientCheck]:
    (batch,) = training_batches(TINY, 0, 1, "float32")
    return check_timed_trainer(plain_model(), trainer, TINY.kind, LayerSize(3, 6), batch)


def test_a_trainer_that_still_trains_after_timing_is_right() -> None:
    checks = checked_after_timing(trained())
    assert [check.what for check in checks] == ["loss after timing", "movement after timing"]
    assert judge_gradients(checks) == ""


@pytest.mark.parametrize(
    ("mistake", "what"),
    [
        ("no step", "movement after timing"),
        ("loss in bits", "loss after timing"),
        ("loss after the step", "loss after timing"),
        ("loss not finite", "loss after timing"),
    ],
)
def test_a_trainer_that_stopped_training_while_it_was_timed_is_found_out(mistake: str, what: str) -> None:
    checks = checked_after_timing(trained(mistake))
    assert [check.what for check in checks if not check.error <= check.allowed] == [what]
    assert judge_gradients(checks).startswith(f"training step: {what} is off by ")


def test_a_trainer_whose_weights_left_the_numbers_is_found_out() -> None:
    trainer = trained()
    trainer._weights["weight_hh_l0"][0, 0] = np.nan
    assert judge_gradients(checked_after_timing(trainer)) != ""
