"""Training by a recipe and scoring, with a runtime whose trainer only writes down what it is asked."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from wrong_models import NumpySession

from harness.architectures import BIGRU, BILSTM, GRU, LSTM
from harness.contract import (
    Architecture,
    Data,
    HarnessError,
    Inputs,
    LayerSize,
    Model,
    Recipe,
    Session,
    SessionOptions,
    Split,
    Task,
    TaskKind,
    Trainable,
    Unsupported,
)
from harness.engine.accuracy import (
    CURVE_POINTS,
    METRICS,
    SCORING_BATCH,
    CurvePoint,
    add_forget_bias,
    agreement,
    initial_head,
    npy_bytes,
    predict,
    score_of,
    summary,
    train,
    training_batches,
    without_head,
)
from harness.parity import probe_weights

if TYPE_CHECKING:
    from harness.contract import FloatArray

SIZE = LayerSize(2, 3)
BOTH = pytest.mark.parametrize("architecture", [LSTM, BILSTM], ids=lambda a: a.name)
Losses = Callable[[int], float]


def build(**_: int) -> None:
    raise AssertionError("the harness never builds a layer itself")


def model_of(architecture: Architecture, name: str = "fake") -> Model:
    return Model(name, architecture, "fake", build)


@dataclass
class FakeTrainer:
    """Learns nothing but how many steps it took: it adds that to the head's first bias.

    Attributes:
        batches: what it was given, in order.
    """

    start: Mapping[str, FloatArray]
    losses: Losses
    batches: list[Split] = field(default_factory=list)

    def prepare(self, batch: Split) -> Any:
        return "on the device", batch

    def step(self, prepared: Any) -> float:
        place, batch = prepared
        assert place == "on the device"
        self.batches.append(batch)
        return self.losses(len(self.batches))

    def weights(self) -> dict[str, FloatArray]:
        bias = self.start["head.bias"].copy()
        bias[0] += len(self.batches)
        return {**self.start, "head.bias": bias}


class FakeRuntime:
    """A trainable runtime in NumPy.

    Attributes:
        trainer: the last one opened, and with it the kind, recipe and options it was opened with.
        sessions: all that were opened, and the names of the weights each was given.
    """

    name = "fake"
    frameworks = frozenset({"fake"})
    description = ""

    def __init__(self, losses: Losses = float) -> None:
        self._losses = losses
        self.trainer: FakeTrainer
        self.kind: TaskKind
        self.recipe: Recipe
        self.options: SessionOptions
        self.sessions: list[NumpySession] = []
        self.opened_with: list[set[str]] = []
        self.seeds: list[int] = []

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
        self.sessions.append(NumpySession(weights, options.dtype))
        self.opened_with.append(set(weights))
        return self.sessions[-1]

    def initial_weights(self, model: Model, size: LayerSize, seed: int) -> Mapping[str, FloatArray]:
        self.seeds.append(seed)
        return probe_weights(model.architecture, size, seed=seed)

    def open_trainer(
        self,
        model: Model,
        weights: Mapping[str, FloatArray],
        kind: TaskKind,
        recipe: Recipe,
        options: SessionOptions,
    ) -> FakeTrainer:
        self.kind, self.recipe, self.options = kind, recipe, options
        self.trainer = FakeTrainer(dict(weights), self._losses)
        return self.trainer


def split_of(rows: int, kind: TaskKind = "classification", outputs: int = 4, lengths: bool = False) -> Split:
    """Rows that can be told apart: the first number of row k is k, and so is what it is labelled with."""
    x = np.random.default_rng(rows).standard_normal((rows, 5, 2)).astype("float32")
    x[:, 0, 0] = np.arange(rows)
    if kind == "classification":
        targets: Any = np.arange(rows) % outputs
    else:
        targets = np.repeat(np.arange(rows, dtype="float32")[:, None], outputs, axis=1)
    return Split(x, targets, np.arange(rows) % 5 + 1 if lengths else None)


def row_numbers(batch: Split) -> list[int]:
    return [int(value) for value in batch.x[:, 0, 0]]


def task_of(recipe: Recipe, kind: TaskKind = "classification", outputs: int = 4) -> Task:
    def load(_: object) -> Data:
        raise AssertionError("the caller loads the data")

    return Task("fake", kind, 2, 5, outputs, load, recipe)


def trained(
    rows: int = 10,
    recipe: Recipe | None = None,
    seed: int = 0,
    kind: TaskKind = "classification",
    runtime: FakeRuntime | None = None,
    architecture: Architecture = LSTM,
    dtype: str = "float32",
    lengths: bool = False,
    name: str = "fake",
) -> tuple[FakeRuntime, dict[str, FloatArray], list[CurvePoint], FloatArray]:
    runtime = runtime or FakeRuntime()
    data = Data(split_of(rows, kind, lengths=lengths), split_of(7, kind, lengths=lengths))
    task = task_of(recipe or Recipe(batch_size=4, epochs=2), kind)
    options = SessionOptions(SIZE, dtype=dtype)
    return runtime, *train(model_of(architecture, name), runtime, task, data, seed, options)


RECIPES = st.builds(Recipe, batch_size=st.integers(1, 12), epochs=st.integers(1, 6))


def test_the_fake_is_what_the_harness_calls_trainable() -> None:
    assert isinstance(FakeRuntime(), Trainable)


# ------------------------------------------------------------------------------------------------- the recipe


@settings(max_examples=50)
@given(rows=st.integers(1, 40), recipe=RECIPES, seed=st.integers(0, 99))
def test_each_epoch_sees_every_row_once_in_batches_of_the_recipes_size(rows: int, recipe: Recipe, seed: int) -> None:
    runtime, *_ = trained(rows, recipe, seed)
    batches = runtime.trainer.batches
    steps = math.ceil(rows / recipe.batch_size)
    assert len(batches) == recipe.epochs * steps
    for start in range(0, len(batches), steps):
        epoch = batches[start : start + steps]
        assert [len(batch.x) for batch in epoch[:-1]] == [recipe.batch_size] * (steps - 1)
        assert sorted(number for batch in epoch for number in row_numbers(batch)) == list(range(rows))


def order_of(seed: int, name: str = "fake", architecture: Architecture = LSTM) -> list[list[int]]:
    runtime, *_ = trained(20, Recipe(batch_size=20, epochs=3), seed, architecture=architecture, name=name)
    return [row_numbers(batch) for batch in runtime.trainer.batches]


def test_every_epoch_has_an_order_of_its_own() -> None:
    orders = order_of(0)
    assert len({tuple(order) for order in orders}) == 3
    assert list(range(20)) not in orders


def test_the_order_follows_the_seed_and_nothing_else() -> None:
    assert order_of(5) == order_of(5, name="another", architecture=BILSTM)
    assert order_of(5) != order_of(6)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_row_keeps_its_target_and_its_length(kind: TaskKind) -> None:
    runtime, *_ = trained(10, kind=kind, lengths=True)
    for batch in runtime.trainer.batches:
        numbers = np.array(row_numbers(batch))
        wanted = numbers % 4 if kind == "classification" else np.repeat(numbers[:, None], 4, axis=1)
        np.testing.assert_array_equal(batch.targets, wanted)
        assert batch.lengths is not None
        np.testing.assert_array_equal(batch.lengths, numbers % 5 + 1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_a_batch_has_the_dtype_of_the_session_and_classes_stay_integers(kind: TaskKind, dtype: str) -> None:
    runtime, _, _, predictions = trained(kind=kind, dtype=dtype)
    for batch in runtime.trainer.batches:
        assert batch.x.dtype == dtype
        assert batch.targets.dtype == ("int64" if kind == "classification" else dtype)
    assert predictions.dtype == dtype


def test_the_trainer_is_told_the_kind_the_recipe_and_the_options() -> None:
    recipe = Recipe(hidden_size=999, num_layers=9, optimizer="sgd", learning_rate=0.5, batch_size=4, clip_norm=2.0)
    runtime, *_ = trained(recipe=recipe, kind="regression", dtype="float64")
    assert runtime.kind == "regression"
    assert runtime.options == SessionOptions(SIZE, dtype="float64")
    assert runtime.recipe == replace(recipe, hidden_size=SIZE.hidden_size, num_layers=SIZE.num_layers)


@BOTH
def test_training_starts_from_the_models_own_weights_and_the_harnesss_head(architecture: Architecture) -> None:
    runtime, *_ = trained(seed=3, architecture=architecture)
    expected = {**probe_weights(architecture, SIZE, seed=3), **initial_head(architecture, SIZE, 4, 3)}
    assert runtime.seeds == [3]
    assert set(runtime.trainer.start) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(runtime.trainer.start[name], array)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_weights_training_starts_from_have_the_dtype_of_the_session(dtype: str) -> None:
    runtime, *_ = trained(dtype=dtype, recipe=Recipe(forget_bias=1.0))
    assert {array.dtype for array in runtime.trainer.start.values()} == {np.dtype(dtype)}


def test_a_recipe_with_a_forget_bias_starts_from_it() -> None:
    runtime, *_ = trained(recipe=Recipe(forget_bias=1.5))
    plain = probe_weights(LSTM, SIZE, seed=0)
    for name, array in add_forget_bias(plain, 1.5).items():
        np.testing.assert_array_equal(runtime.trainer.start[name], array)
    assert not np.array_equal(runtime.trainer.start["bias_ih_l0"], plain["bias_ih_l0"])


def test_a_runtime_that_cannot_train_is_named() -> None:
    class OnlyRuns:
        name = "onlyruns"
        frameworks = frozenset({"fake"})
        description = ""

        def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
            raise AssertionError

    data = Data(split_of(4), split_of(4))
    with pytest.raises(HarnessError, match="runtime 'onlyruns' cannot train"):
        train(model_of(LSTM), OnlyRuns(), task_of(Recipe()), data, 0, SessionOptions(SIZE))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_the_training_at_its_step(bad: float) -> None:
    runtime = FakeRuntime(losses=lambda step: bad if step == 3 else 1.0)
    with pytest.raises(HarnessError, match=f"diverged: the loss was {bad} at step 3"):
        trained(10, Recipe(batch_size=2, epochs=2), runtime=runtime)
    assert len(runtime.trainer.batches) == 3


# ------------------------------------------------------------------------------------------------- the curve


@settings(max_examples=100)
@given(rows=st.integers(1, 60), recipe=RECIPES)
def test_the_points_of_a_curve_cover_every_step_once(rows: int, recipe: Recipe) -> None:
    _, _, curve, _ = trained(rows, recipe)  # the loss of step k is k
    steps_per_epoch = math.ceil(rows / recipe.batch_size)
    assert curve[-1].step == recipe.epochs * steps_per_epoch
    before = 0
    for point in curve:
        assert point.step > before
        assert point.training_loss == pytest.approx(np.mean(range(before + 1, point.step + 1)))
        assert point.epoch == pytest.approx(point.step / steps_per_epoch)
        before = point.step


@settings(max_examples=100)
@given(rows=st.integers(1, 60), recipe=RECIPES)
def test_a_score_stands_at_the_end_of_every_epoch_and_nowhere_else(rows: int, recipe: Recipe) -> None:
    _, _, curve, _ = trained(rows, recipe)
    assert [point.epoch for point in curve if not math.isnan(point.score)] == list(range(1, recipe.epochs + 1))


@settings(max_examples=50)
@given(rows=st.integers(1, 300), epochs=st.integers(1, 6))
def test_a_curve_has_about_twenty_points_besides_its_scores(rows: int, epochs: int) -> None:
    assume(rows * epochs >= CURVE_POINTS)
    _, _, curve, _ = trained(rows, Recipe(batch_size=1, epochs=epochs))
    losses = [point for point in curve if math.isnan(point.score)]
    assert CURVE_POINTS - epochs <= len(losses) < 2 * CURVE_POINTS


def test_a_point_of_a_curve_is_a_row_that_json_has_numbers_for() -> None:
    assert CurvePoint(3, 0.5, math.inf, math.nan).row() == {
        "step": 3,
        "epoch": 0.5,
        "training_loss": None,
        "score": None,
    }
    assert CurvePoint(3, 0.5, 0.25, 1.0).row() == {"step": 3, "epoch": 0.5, "training_loss": 0.25, "score": 1.0}


def test_the_bytes_of_an_array_are_read_again_without_pickle_and_what_would_need_it_is_refused() -> None:
    array = np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32)
    found = np.load(io.BytesIO(npy_bytes(array)), allow_pickle=False)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="allow_pickle=False"):
        npy_bytes(np.array([print], dtype=object))


def test_scores_are_taken_with_the_weights_of_their_own_epoch() -> None:
    """The fake's head bias grows with every step, so by the end everything is class 0, and 2 of 7 rows are."""
    runtime, weights, curve, predictions = trained(40, Recipe(batch_size=1, epochs=3))
    assert [point.score for point in curve if not math.isnan(point.score)] == [2 / 7] * 3
    assert weights["head.bias"][0] == pytest.approx(runtime.trainer.start["head.bias"][0] + 120)
    test = split_of(7)
    session = NumpySession(without_head(weights))
    np.testing.assert_array_equal(predictions, predict(session, LSTM, weights, test, "float32"))


def test_a_session_is_opened_for_each_score_without_the_head_and_closed() -> None:
    runtime, *_ = trained(recipe=Recipe(epochs=3))
    assert [session.closed for session in runtime.sessions] == [1, 1, 1]
    assert runtime.opened_with == [set(LSTM.weight_shapes(SIZE))] * 3


# ------------------------------------------------------------------------------------------------- predictions


@BOTH
@pytest.mark.parametrize("lengths", [False, True])
def test_predictions_in_batches_equal_the_whole(architecture: Architecture, lengths: bool) -> None:
    size = LayerSize(2, 3, 2)
    rows = 2 * SCORING_BATCH + 17
    weights = probe_weights(architecture, size) | initial_head(architecture, size, 4, 0)
    exact = {name: array.astype("float64") for name, array in weights.items()}
    data = split_of(rows, lengths=lengths)
    session = NumpySession(without_head(weights), "float64")
    got = predict(session, architecture, weights, data, "float64")
    assert [shape[0] for shape in session.seen] == [SCORING_BATCH, SCORING_BATCH, 17]

    whole = architecture.reference(exact, Inputs(data.x.astype("float64"), lengths=data.lengths), size)
    h_n = whole.state[0]
    features = h_n[-1] if architecture.directions == 1 else np.concatenate([h_n[-2], h_n[-1]], axis=1)
    np.testing.assert_allclose(got, features @ exact["head.weight"].T + exact["head.bias"], rtol=1e-11, atol=1e-12)


def test_the_summary_of_one_direction_is_the_last_layers_final_h() -> None:
    h_n = np.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(summary(h_n, 1), h_n[1])


def test_the_summary_of_two_directions_is_forward_then_backward_of_the_last_layer() -> None:
    h_n = np.arange(4 * 3 * 5.0).reshape(4, 3, 5)
    result = summary(h_n, 2)
    assert result.shape == (3, 10)
    np.testing.assert_array_equal(result[:, :5], h_n[2])
    np.testing.assert_array_equal(result[:, 5:], h_n[3])


# ------------------------------------------------------------------------------------------------- scores


def test_accuracy_is_the_share_of_rows_whose_largest_output_is_their_class() -> None:
    predictions = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [-2.0, -1.0]])
    assert score_of("classification", predictions, np.array([0, 1, 1, 0])) == 0.5
    assert METRICS["classification"] == "accuracy"


def test_the_error_of_a_regression_is_squared_and_averaged_over_all_values() -> None:
    predictions = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert score_of("regression", predictions, np.array([[1.0, 0.0], [3.0, 1.0]])) == (4 + 9) / 4
    assert METRICS["regression"] == "mean squared error"


def test_targets_in_one_column_are_not_broadcast_against_predictions() -> None:
    predictions = np.array([[1.0], [2.0], [3.0]])
    assert score_of("regression", predictions, np.array([1.0, 2.0, 3.0])) == 0


@given(seed=st.integers(0, 1000), rows=st.integers(1, 30))
def test_a_score_does_not_depend_on_the_order_of_rows(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    predictions, classes, order = rng.standard_normal((rows, 3)), rng.integers(3, size=rows), rng.permutation(rows)
    score = score_of("classification", predictions, classes)
    assert score_of("classification", predictions[order], classes[order]) == score
    assert round(score * rows) == sum(int(np.argmax(row)) == k for row, k in zip(predictions, classes, strict=True))


def test_variants_agree_on_the_rows_they_give_the_same_class() -> None:
    one = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    other = np.array([[5.0, 4.0], [1.0, 0.0], [0.1, 0.0]])
    assert agreement("classification", one, other) == 2
    assert agreement("classification", one, one) == 3


def test_agreement_means_nothing_for_a_regression() -> None:
    assert agreement("regression", np.zeros((2, 1)), np.zeros((2, 1))) is None


def test_predictions_that_are_not_finite_are_no_correct_answers() -> None:
    assert score_of("classification", np.full((4, 3), np.nan), np.zeros(4, "int64")) != 1


# ------------------------------------------------------------------------------------------------- the head


@given(directions=st.sampled_from([1, 2]), hidden=st.integers(1, 200), seed=st.integers(0, 999))
def test_a_new_head_lies_within_the_range_of_torchs_linear(directions: int, hidden: int, seed: int) -> None:
    head = initial_head((LSTM, BILSTM)[directions - 1], LayerSize(2, hidden), 5, seed)
    assert {name: array.shape for name, array in head.items()} == {
        "head.weight": (5, directions * hidden),
        "head.bias": (5,),
    }
    bound = 1 / math.sqrt(directions * hidden)
    for array in head.values():
        assert array.dtype == np.float32
        assert np.abs(array).max() <= np.float32(bound)


def test_a_new_head_fills_its_range() -> None:
    weight = initial_head(LSTM, LayerSize(2, 400), 10, 0)["head.weight"] * 20
    assert weight.min() < -0.99
    assert weight.max() > 0.99
    assert abs(weight.mean()) < 4 / math.sqrt(3 * weight.size)


def test_all_variants_of_an_architecture_start_with_the_same_head() -> None:
    stranger = replace(LSTM, name="stranger")
    one, other = (initial_head(a, LayerSize(2, 8), 5, 1) for a in (LSTM, stranger))
    third = initial_head(LSTM, LayerSize(2, 8), 5, 2)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
        assert not np.array_equal(one[name], third[name])


def test_without_its_head_the_layer_has_its_own_weights_only() -> None:
    layer = probe_weights(BILSTM, SIZE)
    stripped = without_head(layer | initial_head(BILSTM, SIZE, 3, 0))
    assert list(stripped) == list(layer)
    assert all(stripped[name] is layer[name] for name in layer)


# ------------------------------------------------------------------------------------------------- the forget bias


@BOTH
@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_forget_bias_is_added_to_the_forget_gate_of_every_layer_and_direction(
    architecture: Architecture, num_layers: int
) -> None:
    hidden = SIZE.hidden_size
    weights = probe_weights(architecture, replace(SIZE, num_layers=num_layers))
    kept = {name: array.copy() for name, array in weights.items()}
    changed = add_forget_bias(weights, 1.0)
    assert list(changed) == list(weights)
    touched = 0
    for name, array in kept.items():
        np.testing.assert_array_equal(weights[name], array)  # what was given stays as it was
        difference = changed[name] - array
        assert changed[name].dtype == np.float32
        if name.startswith("bias_ih"):
            touched += 1
            np.testing.assert_allclose(difference, [0] * hidden + [1] * hidden + [0] * 2 * hidden, atol=1e-6)
        else:
            assert not difference.any()
    assert touched == num_layers * architecture.directions


def test_a_forget_bias_opens_the_forget_gate_in_the_oracle() -> None:
    """Placed rightly, it holds a cell's content: with no input and no g, c_1 = sigmoid(amount) c_0."""
    zeros = {name: np.zeros(shape) for name, shape in LSTM.weight_shapes(SIZE).items()}
    state = (np.zeros((1, 1, 3)), np.ones((1, 1, 3)))
    outputs = LSTM.reference(add_forget_bias(zeros, 2.0), Inputs(np.zeros((1, 1, 2)), state), SIZE)
    np.testing.assert_allclose(outputs.state[1], 1 / (1 + math.exp(-2)))


def test_weights_without_gated_biases_are_refused() -> None:
    with pytest.raises(Unsupported, match="no bias_ih_l0"):
        add_forget_bias({"weight": np.ones(4)}, 1.0)


@pytest.mark.parametrize("architecture", [GRU, BIGRU], ids=lambda a: a.name)
def test_a_gru_has_no_forget_gate_and_so_does_not_support_a_forget_bias(architecture: Architecture) -> None:
    with pytest.raises(Unsupported, match="bias_ih_l0 is not that of an LSTM's four gates; choose another task"):
        trained(architecture=architecture, recipe=Recipe(forget_bias=1.0))


# ------------------------------------------------------------------------------------------------- timing a step


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_step_is_timed_on_random_full_length_batches_of_the_tasks_shape(dtype: str) -> None:
    batches = training_batches(task_of(Recipe(batch_size=6)), 0, 5, dtype)
    assert len(batches) == 5 == len({batch.x.tobytes() for batch in batches})
    for batch in batches:
        assert batch.x.shape == (6, 5, 2)
        assert batch.x.dtype == dtype
        assert batch.lengths is None
        assert batch.targets.shape == (6,)
        assert batch.targets.dtype == "int64"
        assert set(batch.targets.tolist()) <= set(range(4))


def test_the_targets_of_a_timed_regression_step_have_its_shape_and_dtype() -> None:
    (batch,) = training_batches(task_of(Recipe(batch_size=6), "regression", outputs=3), 0, 1, "float64")
    assert batch.targets.shape == (6, 3)
    assert batch.targets.dtype == "float64"


def test_timed_batches_follow_the_seed() -> None:
    one, same, other = (training_batches(task_of(Recipe()), seed, 1, "float32")[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.x, same.x)
    assert not np.array_equal(one.x, other.x)
