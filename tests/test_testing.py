"""The conformance kit: every rule finds what breaks it, an honest plugin keeps them all, and pytest is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from strangers import TINY, PlainRuntime, PlainTrainer, World, plain_model
from wrong_models import BEHAVIOURS, Misbehaving, NumpySession

from harness import BILSTM, LSTM, Architecture, Data, LayerSize, Model, Recipe, Session, SessionOptions, Split, Task
from harness import testing as kit
from harness.contract import DataError, HarnessError, TaskKind, Unsupported

if TYPE_CHECKING:
    from harness.contract import FloatArray

pytest_plugins = "pytester"

HONEST = [(LSTM, 1), (LSTM, 2), (BILSTM, 1), (BILSTM, 2)]


@dataclass(frozen=True)
class Player:
    """A runtime whose session is right, or has one of the mistakes or behaviours of `wrong_models`."""

    mistake: str = ""
    name: str = "player"
    frameworks: frozenset[str] = frozenset({"plain"})
    description: str = ""

    def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
        if options.device != "cpu":
            raise Unsupported(f"no device '{options.device}'")
        if self.mistake in BEHAVIOURS:
            return Misbehaving(weights, options.dtype, self.mistake)
        return NumpySession(weights, options.dtype, self.mistake or None)


def a_model(architecture: Architecture = LSTM, **changes: Any) -> Model:
    return Model("some-lstm", architecture, "plain", build=dict, **changes)


# ------------------------------------------------------------------------------------------------------------- variants


@pytest.mark.parametrize("rule", kit.CHECKS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("architecture", "num_layers"), HONEST, ids=lambda value: getattr(value, "name", value))
def test_an_honest_variant_keeps_every_rule_that_is_for_it(
    architecture: Architecture, num_layers: int, dtype: str, rule: str
) -> None:
    model = a_model(architecture)
    if rule not in kit.applicable(model, Player()):
        with pytest.raises(Unsupported, match=f"some-lstm@player: the rule {rule} is not for it"):
            kit.CHECKS[rule](model, Player(), LayerSize(5, 6, num_layers), dtype)
        return
    kit.CHECKS[rule](model, Player(), LayerSize(5, 6, num_layers), dtype)


def test_rules_of_one_direction_and_of_training_are_asked_of_those_alone() -> None:
    assert set(kit.applicable(a_model(LSTM), PlainRuntime())) == set(kit.CHECKS)
    assert set(kit.CHECKS) - set(kit.applicable(a_model(BILSTM), PlainRuntime())) == {
        "causality",
        "chunked_equals_whole",
    }
    assert set(kit.CHECKS) - set(kit.applicable(a_model(LSTM), Player())) == {"gradients"}


BROKEN = [
    ("shape_and_dtype", LSTM, "output of another dtype", "dtype float64 instead of float32"),
    ("shape_and_dtype", LSTM, "state of another dtype", "c_n at "),
    ("shape_and_dtype", LSTM, "output time first", "y at "),
    ("shape_and_dtype", LSTM, "state batch first", "h_n at "),
    ("shape_and_dtype", LSTM, "no final c", "1 state arrays"),
    ("shape_and_dtype", LSTM, "a list instead of an array", "a list instead of an array"),
    ("shape_and_dtype", LSTM, "a tuple instead of outputs", "fetch gave a tuple"),
    ("shape_and_dtype", LSTM, "not finite in one place", "not finite"),
    ("shape_and_dtype", BILSTM, "directions added instead of side by side", "shape "),
    ("parity", LSTM, "gates i and f swapped", "checks failed"),
    ("parity", BILSTM, "directions swapped in the output", "y at "),
    ("determinism", LSTM, "dropout left on", "the same call twice gives two answers"),
    ("determinism", LSTM, "differs by instance", "a session opened anew gives two answers"),
    ("inputs_not_mutated", LSTM, "inputs changed", "the session changed its inputs"),
    ("inputs_not_mutated", LSTM, "initial state changed", "the session changed its inputs"),
    ("inputs_not_mutated", LSTM, "changes its weights", "the session changed the weights"),
    ("batch_of_n_is_n_batches_of_one", LSTM, "mixes the rows", "y of a batch and its rows alone differs"),
    ("batch_of_n_is_n_batches_of_one", LSTM, "final states of the batch reversed", "h_n of a batch"),
    ("batch_of_n_is_n_batches_of_one", BILSTM, "batch reversed instead of time", "y of a batch"),
    ("causality", LSTM, "reads ahead", "y of the first 1 steps, before two different ends, differs"),
    ("chunked_equals_whole", LSTM, "state ignored", "12 steps at once and in pieces of 5, 7 differs"),
    ("chunked_equals_whole", LSTM, "c_0 ignored", "differs by"),
    ("chunked_equals_whole", LSTM, "h_0 and c_0 swapped", "differs by"),
    ("padding_never_leaks", LSTM, "lengths ignored", "with zeros as padding differs by"),
    ("padding_never_leaks", LSTM, "padding zeroed but final state taken at the end", "h_n of rows with 1e4"),
    ("padding_never_leaks", BILSTM, "padding flipped to the front", "differs by"),
    ("sessions_do_not_disturb_each_other", LSTM, "keeps its weights for all", "a session alone and beside another"),
    ("no_state_leak", LSTM, "state carried over between calls", "the same call before and after another"),
    ("results_are_kept", LSTM, "answers in its own buffer", "a later call changed the outputs"),
    ("results_are_kept", LSTM, "prepares in its own buffer", "an input run at once and after another"),
    (
        "claims",
        LSTM,
        "says nonsense of itself",
        "the session's compile_seconds is 'soon' (str); give a number of seconds",
    ),
]


@pytest.mark.parametrize(("rule", "architecture", "mistake", "said"), BROKEN, ids=lambda v: getattr(v, "name", v))
def test_a_rule_finds_what_breaks_it(rule: str, architecture: Architecture, mistake: str, said: str) -> None:
    with pytest.raises(kit.CheckFailed) as caught:
        kit.CHECKS[rule](a_model(architecture), Player(mistake))
    text = str(caught.value)
    assert text.startswith(f"some-lstm@player: {rule}: ")
    assert said in text
    assert text == f"some-lstm@player: {rule}: {caught.value.reason}"
    assert "; " in text  # what is asked
    assert text.isprintable()


@pytest.mark.parametrize(
    ("behaviour", "rule"),
    [
        ("prepares in its own buffer", "results_are_kept"),
        ("keeps its weights for all", "sessions_do_not_disturb_each_other"),
        ("differs by instance", "determinism"),
        ("changes its weights", "inputs_not_mutated"),
        ("says nonsense of itself", "claims"),
    ],
)
def test_what_breaks_one_rule_alone_is_found_by_that_rule_alone(behaviour: str, rule: str) -> None:
    found = set()
    for asked in kit.applicable(a_model(), Player()):
        try:
            kit.CHECKS[asked](a_model(), Player(behaviour))
        except kit.CheckFailed:
            found.add(asked)
    assert found == {rule}


def test_every_rule_is_known_to_be_able_to_fail() -> None:
    assert {rule for rule, *_ in BROKEN} | {"gradients", "weights_round_trip"} == set(kit.CHECKS)


@pytest.mark.parametrize("rule", kit.CHECKS)
def test_a_rule_is_a_public_function_that_says_what_it_asks(rule: str) -> None:
    check = getattr(kit, f"check_{rule}")
    assert check is kit.CHECKS[rule]
    assert f"check_{rule}" in kit.__all__
    assert getattr(check, "__name__", "") == f"check_{rule}"
    assert check.__doc__


@pytest.mark.parametrize("rule", ["shape_and_dtype", "parity", "causality", "results_are_kept"])
def test_what_a_plugin_refuses_is_not_a_broken_rule(rule: str) -> None:
    with pytest.raises(Unsupported, match="no device 'cuda'"):
        kit.CHECKS[rule](a_model(), Player(), device="cuda")


def test_what_else_a_plugin_raises_is_not_hidden() -> None:
    with pytest.raises(ValueError, match=r"a \| pipe"):
        kit.check_parity(plain_model("broken", "raises"), PlainRuntime())


def test_a_session_is_closed_when_a_rule_is_broken() -> None:
    opened: list[NumpySession] = []

    class Kept(Player):
        def open(self, model: Model, weights: Mapping[str, FloatArray], options: SessionOptions) -> Session:
            opened.append(NumpySession(weights, options.dtype, "dropout left on"))
            return opened[-1]

    for rule in ("parity", "determinism", "no_state_leak", "results_are_kept"):
        with pytest.raises(kit.CheckFailed):
            kit.CHECKS[rule](a_model(), Kept())
    assert opened
    assert {session.closed for session in opened} == {1}


# ------------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Trains(PlainRuntime):
    """A runtime that trains in some dtypes, and gives its weights in a form of its own."""

    mistake: str = ""
    dtypes: tuple[str, ...] = ("float32", "float64")
    form: Callable[[dict[str, FloatArray]], dict[str, FloatArray]] = field(default=dict)

    def open_trainer(
        self, model: Model, weights: Mapping[str, FloatArray], kind: TaskKind, recipe: Recipe, options: SessionOptions
    ) -> PlainTrainer:
        if options.dtype not in self.dtypes:
            raise Unsupported(f"runtime 'plain' does not train in {options.dtype}")

        class Formed(PlainTrainer):
            def weights(inner) -> dict[str, FloatArray]:  # noqa: N805  self is the runtime here
                return self.form(super().weights())

        return Formed(weights, kind, recipe, self.mistake)


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float32",)])
def test_right_gradients_pass_and_wrong_ones_do_not_whether_there_is_float64_or_not(dtypes: tuple[str, ...]) -> None:
    one_layer = LayerSize(5, 6)
    kit.check_gradients(plain_model(), Trains(dtypes=dtypes), one_layer)
    with pytest.raises(kit.CheckFailed, match="classification: training step: gradient of "):
        kit.check_gradients(plain_model(), Trains(mistake="gradient twice as large", dtypes=dtypes), one_layer)


def test_a_trainer_that_knows_neither_dtype_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="does not train in float32"):
        kit.check_gradients(plain_model(), Trains(dtypes=()), LayerSize(5, 6))


# ---------------------------------------------------------------------------------------------------------------- doors


def in_float64(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: array.astype("float64") for name, array in weights.items()}


def without_a_bias(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: array for name, array in weights.items() if not name.startswith("bias_hh")}


def gates_turned(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: np.roll(array, len(array) // 4, axis=0) for name, array in weights.items()}


def gates_turned_back(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: np.roll(array, -len(array) // 4, axis=0) for name, array in weights.items()}


def rounded(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: array.astype("float16").astype(array.dtype) for name, array in weights.items()}


def without_head(weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name: rounded({name: array})[name] if "head" in name else array for name, array in weights.items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_doors_that_lose_nothing_pass(dtype: str) -> None:
    turned = a_model(to_parameters=gates_turned, from_parameters=gates_turned_back)
    for model in (a_model(), turned):
        kit.check_weights_round_trip(model, Player(), dtype=dtype)
    kit.check_weights_round_trip(plain_model(), Trains(), LayerSize(5, 6), dtype)


def test_a_trainer_that_refuses_leaves_the_doors_to_be_checked() -> None:
    kit.check_weights_round_trip(plain_model(), Trains(dtypes=()))
    with pytest.raises(kit.CheckFailed):
        kit.check_weights_round_trip(plain_model(to_parameters=gates_turned), Trains(dtypes=()))


def test_what_refuses_to_be_opened_is_not_said_to_have_good_doors() -> None:
    with pytest.raises(Unsupported, match="Sundays"):
        kit.check_weights_round_trip(plain_model("sleepy", "refuses"), PlainRuntime())


@pytest.mark.parametrize(
    ("doors", "said"),
    [
        ({"to_parameters": in_float64}, "to_parameters was given float32 and gives weight_ih_l0 in float64"),
        ({"from_parameters": in_float64}, "from_parameters was given float32 and gives "),
        ({"to_parameters": without_a_bias}, "does not give the architecture's names and shapes"),
        ({"from_parameters": without_a_bias}, "does not give the architecture's names and shapes"),
        ({"to_parameters": gates_turned}, "to_parameters after from_parameters: weight_ih_l0 is not what went in"),
        ({"from_parameters": rounded}, "to_parameters after from_parameters: weight_ih_l0 is not what went in"),
    ],
)
def test_a_door_that_loses_something_is_found(doors: dict[str, Any], said: str) -> None:
    if doors == {"from_parameters": in_float64}:  # a way in that rounds hides it from the way round
        doors["to_parameters"] = lambda weights: {name: array.astype("float32") for name, array in weights.items()}
    with pytest.raises(kit.CheckFailed) as caught:
        kit.check_weights_round_trip(a_model(**doors), Player())
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (rounded, "the head of an untrained trainer: head.weight is not what went in"),
        (in_float64, "the head of an untrained trainer: "),
        (gates_turned, "of an untrained trainer: "),
    ],
)
def test_a_trainer_that_gives_other_weights_than_it_was_given_is_found(form: Any, said: str) -> None:
    with pytest.raises(kit.CheckFailed) as caught:
        kit.check_weights_round_trip(plain_model(), Trains(form=form), LayerSize(5, 6))
    assert said in str(caught.value)


# --------------------------------------------------------------------------------------------------------------- import

GIVES = """
import harness

def build(**size): raise RuntimeError("never built")

@harness.hookimpl
def harness_models():
    {first}
    return [harness.Model("idle", harness.LSTM, "plain", build)]
"""


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


def test_a_plugin_that_imports_nothing_is_free(world: World) -> None:
    world.add("light", GIVES.format(first="import decimal, sqlite3, ctypes"))
    kit.check_import_is_free("light")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import numpy\n" + GIVES.format(first=""), "importing it loads numpy; import those in the functions that"),
        (GIVES.format(first="import numpy"), "importing it loads numpy; "),
        ("import no_such_package", "it cannot be loaded: "),
        ("import os\nos._exit(3)", "the interpreter that imports it gives no answer ("),
        ("print('{}')\nimport os\nos._exit(0)", "the interpreter that imports it gives no answer ("),
    ],
)
def test_a_plugin_whose_import_costs_something_or_fails_is_found(world: World, source: str, said: str) -> None:
    world.add("heavy", source)
    with pytest.raises(kit.CheckFailed) as caught:
        kit.check_import_is_free("heavy")
    assert str(caught.value).startswith(f"heavy: import_is_free: {said}")


def test_importing_the_kit_imports_neither_numpy_nor_pytest() -> None:
    code = "import sys, harness.testing; print({'numpy', 'pytest'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---------------------------------------------------------------------------------------------------------------- tasks


def split(**changes: Any) -> Split:
    whole = TINY.load(None).train
    rows = np.full(len(whole.x), 5, np.int64)
    return replace(Split(whole.x.copy(), whole.targets.copy(), rows), **changes)


def a_task(train: Any, kind: TaskKind = "classification") -> Task:
    return replace(TINY, kind=kind, load=lambda data_dir: Data(train, split()))


X, TARGETS = split().x, split().targets
WRONG_DATA: dict[str, tuple[Any, str]] = {
    "x in float64": (split(x=X.astype("float64")), "train: x is float64 (20, 5, 3); the task says float32 (20, 5, 3)"),
    "x too short": (split(x=X[:, :4]), "train: x is float32 (20, 4, 3); the task says "),
    "x of other features": (split(x=X[:, :, :2]), "train: x is float32 (20, 5, 2); the task says "),
    "x not finite": (split(x=np.full_like(X, np.nan)), "train: x is not finite at some real step"),
    "no rows": (split(x=X[:0], targets=TARGETS[:0], lengths=None), "train: it has no rows"),
    "targets in float": (split(targets=TARGETS.astype("float32")), "train: targets is float32 (20,); "),
    "too few targets": (split(targets=TARGETS[:-1]), "train: targets is int64 (19,); the task says int64 (20,)"),
    "targets as a list": (split(targets=TARGETS.tolist()), "train: targets is a list; give a NumPy array"),
    "a class too many": (split(targets=TARGETS + 1), "train: targets go from 1 to 2; classes are 0..1"),
    "a class below zero": (split(targets=TARGETS - 1), "train: targets go from -1 to 0; classes are 0..1"),
    "a length of zero": (split(lengths=np.zeros(20, np.int64)), "train: lengths go from 0 to 0; every one is in 1..5"),
    "a length too long": (split(lengths=np.full(20, 6)), "train: lengths go from 6 to 6; every one is in 1..5"),
    "lengths in float": (split(lengths=np.full(20, 5.0)), "train: lengths is float64 (20,); the task says int64"),
}


@pytest.mark.parametrize("what", WRONG_DATA)
def test_data_that_is_not_what_the_task_says_is_found(what: str) -> None:
    train, said = WRONG_DATA[what]
    with pytest.raises(kit.CheckFailed) as caught:
        kit.check_task_data(a_task(train))
    assert str(caught.value).startswith(f"tiny: task_data: {said}")


def test_values_that_are_regressed_are_checked_as_values() -> None:
    values = np.zeros((20, 2), np.float32)
    for wrong, said in ((TARGETS, "targets is int64"), (values + np.nan, "targets are not finite")):
        with pytest.raises(kit.CheckFailed, match=said):
            kit.check_task_data(a_task(split(targets=wrong), "regression"))
    both = Data(split(targets=values), split(targets=values, lengths=None))
    kit.check_task_data(replace(TINY, kind="regression", load=lambda data_dir: both))


def test_padding_of_a_task_may_hold_anything() -> None:
    x = X.copy()
    x[:, 3:] = np.nan
    kit.check_task_data(a_task(split(x=x, lengths=np.full(20, 3))))


def test_a_task_whose_data_changes_from_call_to_call_is_found() -> None:
    rng = np.random.default_rng(0)
    task = replace(TINY, load=lambda data_dir: Data(split(x=rng.random(X.shape, np.float32)), split()))
    with pytest.raises(kit.CheckFailed, match="loading it twice gives two different data sets"):
        kit.check_task_data(task)


def test_a_task_that_gives_no_data_is_found_and_one_whose_data_is_missing_says_so() -> None:
    def missing(data_dir: Path | None) -> Data:
        raise DataError(f"put x.txt into {data_dir}")

    kit.check_task_data(TINY)
    with pytest.raises(kit.CheckFailed, match=r"load gives a dict; give harness\.Data"):
        kit.check_task_data(replace(TINY, load=lambda data_dir: {}))  # type: ignore[arg-type,return-value]
    with pytest.raises(DataError, match=r"put x\.txt into here"):
        kit.check_task_data(replace(TINY, load=missing), Path("here"))


# --------------------------------------------------------------------------------------------------------------- pytest

REASONS = {
    "plain": {"import_is_free": "the tests' strangers import NumPy"},
    "forgetful@plain": {"parity": "it is forgetful", "chunked_equals_whole": "it is forgetful"},
}


@pytest.fixture
def strangers(world: World) -> World:
    """A plugin with an honest model, one that ignores its state, and one that refuses to be opened."""
    world.add_plain(plain_lstm="", forgetful="ignores its state", sleepy="refuses")
    return world


def cases_of(test: Any) -> dict[str, Any]:
    """The cases of a parametrized test by their ids."""
    (mark,) = test.pytestmark
    return {case.id: case for case in mark.args[1]}


def outcomes(pytester: pytest.Pytester, arguments: str) -> dict[str, int]:
    pytester.makepyfile(f"import pytest, harness.testing\ntest_it = harness.testing.conformance('plain', {arguments})")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rsxX").parseoutcomes()


def test_one_line_makes_a_case_of_every_rule_and_everything_the_plugin_gives(strangers: World) -> None:
    cases = cases_of(kit.conformance("plain"))
    variants = [f"{model}@plain-{rule}" for model in ("plain-lstm", "forgetful", "sleepy") for rule in kit.CHECKS]
    assert list(cases) == ["plain-import_is_free", *variants, "tiny-task_data"]


def test_a_plugin_is_checked_with_what_others_give(strangers: World) -> None:
    strangers.add("more", GIVES.format(first=""))
    assert {name.partition("-")[0] for name in cases_of(kit.conformance("more"))} == {"more", "idle@plain"}
    assert "idle@plain-parity" in cases_of(kit.conformance("plain"))


def test_expected_failures_are_expected_and_what_is_refused_is_skipped(
    strangers: World, pytester: pytest.Pytester
) -> None:
    rules = len(kit.CHECKS)
    found = outcomes(pytester, f"expected_failures={REASONS!r}")
    untrained = 2  # gradients of the two that open: the runtime trains one layer, and there are two
    assert found == {"passed": 2 * rules - untrained - 2 + 1, "xfailed": 3, "skipped": rules + untrained}


def test_a_broken_rule_fails_and_so_does_an_expected_failure_that_does_not(
    strangers: World, pytester: pytest.Pytester
) -> None:
    reasons = {**REASONS, "plain-lstm@plain": {"causality": "it was so once"}}
    del reasons["forgetful@plain"]
    assert outcomes(pytester, f"expected_failures={reasons!r}")["failed"] == 3
    assert outcomes(pytester, "")["failed"] == 3


def test_marks_are_given_by_the_variants_name(strangers: World) -> None:
    cases = cases_of(kit.conformance("plain", marks={"plain-*@plain": [pytest.mark.slow]}))
    marked = {name.partition("-")[2] for name, case in cases.items() if pytest.mark.slow in case.marks}
    assert marked == {f"lstm@plain-{rule}" for rule in kit.CHECKS}


@pytest.mark.parametrize(
    ("expected_failures", "said"),
    [
        (
            {"plain-lstn@plain": {"parity": ""}},
            "expected_failures: no variant, plugin or task is called 'plain-lstn@plain'; did you mean 'plain-lstm@",
        ),
        (
            {"plain-lstm@plain": {"casuality": ""}},
            "expected_failures of 'plain-lstm@plain': no check is called 'casuality'; did you mean 'causality'?",
        ),
        ({"tiny": {"parity": ""}}, "expected_failures of 'tiny': no check is called 'parity'; there are: task_data"),
    ],
)
def test_an_expected_failure_of_nothing_is_an_error(
    strangers: World, expected_failures: dict[str, dict[str, str]], said: str
) -> None:
    with pytest.raises(HarnessError) as caught:
        kit.conformance("plain", expected_failures=expected_failures)
    assert str(caught.value).startswith(said)


def test_a_plugin_that_is_not_there_or_cannot_be_loaded_is_an_error(strangers: World) -> None:
    strangers.add("broken", "import no_such_package")
    with pytest.raises(HarnessError, match="no plugin is called 'plane'; did you mean 'plain'"):
        kit.conformance("plane")
    with pytest.raises(HarnessError, match=r"plugin 'broken' cannot be loaded: .*no_such_package.*; repair that first"):
        kit.conformance("broken")


def test_a_task_that_calls_itself_ragged_gives_lengths() -> None:
    kit.check_task_data(replace(TINY, ragged=True, load=lambda data_dir: Data(split(), split())))
    with pytest.raises(kit.CheckFailed, match="test: it has no lengths; give them, or do not call the task ragged"):
        kit.check_task_data(replace(TINY, ragged=True))
