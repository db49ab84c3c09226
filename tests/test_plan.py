"""The plan: which models on which runtimes for which tasks, who trains whom, and what is compared with what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from strangers import TINY, PlainRuntime, plain_model

from harness import BILSTM, LSTM, Architecture, HarnessError, LayerSize, Model, Outputs, Recipe
from harness.catalog import Catalog, Entry, Plugin
from harness.plan import Plan, Trial, Variant, check_plan, make_plan
from harness.suite import Latency, Layer, Server, Stream, Suite, override

OWNER = Plugin("here", "rnn-here", "1.0")


@dataclass(frozen=True)
class Player:
    """A runtime that executes and cannot train."""

    name: str
    frameworks: frozenset[str] = frozenset({"plain"})
    description: str = ""

    def open(self, *_: Any) -> Any:
        raise NotImplementedError


def a_catalog(*values: Any, tasks: tuple[Any, ...] = (TINY,)) -> Catalog:
    def kind(value: Any) -> str:
        return "model" if hasattr(value, "architecture") else "task" if hasattr(value, "recipe") else "runtime"

    return Catalog((OWNER,), tuple(Entry(kind(v), v.name, v, OWNER) for v in (*values, *tasks)))


def variants(plan: Plan) -> list[str]:
    return [str(variant) for variant in plan.variants()]


def trainers(plan: Plan) -> dict[str, str]:
    return {str(t.variant): str(t.trained_by) for t in plan.of("accuracy")}


BOTH = a_catalog(
    plain_model("a"),
    plain_model("b", yardstick=True),
    replace(plain_model("c"), framework="fancy"),
    PlainRuntime("trains"),
    Player("plays"),
    Player("fancy", frozenset({"fancy", "plain"})),
)


OWNERS = {(entry.kind, entry.name): OWNER for entry in BOTH.entries} | {
    ("runtime", "plays"): Plugin("there", "rnn-there", "2.0"),
    ("task", TINY.name): Plugin("elsewhere", "rnn-elsewhere", "3.0"),
}


def test_every_model_meets_every_runtime_that_accepts_its_framework_and_no_other() -> None:
    plan = make_plan(Suite(), BOTH)
    assert variants(plan) == ["a@trains", "a@plays", "a@fancy", "b@trains", "b@plays", "b@fancy", "c@fancy"]


def test_a_variant_gets_one_parity_trial_one_accuracy_trial_a_seed_and_one_latency_trial_a_scenario() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["trains"], seeds=2), BOTH)
    assert [(t.kind, t.seed, t.scenario, t.batch, t.time) for t in plan.trials] == [
        ("parity", None, None, None, None),
        ("accuracy", 0, None, 8, None),
        ("accuracy", 1, None, 8, None),
        ("latency", None, "single-stream", 1, 5),
        ("latency", None, "offline", 32, 5),
        ("latency", None, "training-step", 8, 5),
        ("calibration", None, "single-stream", 1, 5),
    ]


def test_only_what_trains_gets_a_training_step() -> None:
    plan = make_plan(Suite(models=["a"]), BOTH)
    assert [str(t.variant) for t in plan.trials if t.scenario == "training-step"] == ["a@trains"]


def test_without_seeds_there_is_no_accuracy_and_without_scenarios_no_latency() -> None:
    plan = make_plan(Suite(seeds=0, latency=Latency(scenarios=[])), BOTH)
    assert {t.kind for t in plan.trials} == {"parity"}


def test_a_scenario_named_twice_is_measured_once() -> None:
    latency = Latency(scenarios=["offline", "offline"], offline_batch=4)
    plan = make_plan(Suite(models=["a"], runtimes=["plays"], latency=latency), BOTH)
    assert [(t.scenario, t.batch) for t in plan.of("latency")] == [("offline", 4)]


def test_streams_and_loads_are_planned_where_they_can_be() -> None:
    suite = Suite(seeds=0, loads=["server", "stream"], latency=Latency(scenarios=["stream"], twins=0))
    suite = suite.model_copy(update={"server": Server(most_batch=8), "stream": Stream(chunk_steps=4)})
    bi = Model("bi", BILSTM, "plain", lambda **size: None)
    nothing = Architecture("nothing", 1, lambda size: {}, lambda weights, inputs, size: Outputs(inputs.x, ()), ())
    floor = Model("floor", nothing, "plain", lambda **size: None)
    plan = make_plan(suite, a_catalog(plain_model("a"), bi, floor, PlainRuntime("r")))
    assert [(str(t.variant), t.kind, t.scenario, t.batch, t.time) for t in plan.trials if t.kind != "parity"] == [
        ("a@r", "latency", "stream", 1, 4),
        ("a@r", "load", "server", 8, 5),
        ("a@r", "load", "stream", 1, 4),
        ("bi@r", "load", "server", 8, 5),  # a backward direction needs the end
        ("floor@r", "latency", "stream", 1, 4),  # of what does nothing the highest load would be the harness's own
    ]
    assert [t.baseline for t in plan.of("load")] == ["a@r", "a@r", "bi@r"]


def test_every_trial_has_an_id_of_its_own_that_is_safe_as_a_file_name() -> None:
    tasks = (TINY, replace(TINY, name="other"))
    plan = make_plan(Suite(), a_catalog(*(e.value for e in BOTH.entries if e.kind != "task"), tasks=tasks))
    ids = [t.id for t in plan.trials]
    assert len(set(ids)) == len(ids) == 2 * len(make_plan(Suite(), BOTH).trials)
    assert all(name.replace("-", "").isalnum() for name in ids)


def test_what_can_train_trains_itself_and_the_rest_is_trained_by_its_model_or_else_by_the_yardstick() -> None:
    assert trainers(make_plan(Suite(), BOTH)) == {
        "a@trains": "a@trains",
        "a@plays": "a@trains",
        "a@fancy": "a@trains",
        "b@trains": "b@trains",
        "b@plays": "b@trains",
        "b@fancy": "b@trains",
        "c@fancy": "b@trains",  # no runtime trains framework fancy
    }


def test_a_trainer_need_not_be_among_what_was_asked_for() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["plays"]), BOTH)
    assert variants(plan) == ["a@plays"]
    assert trainers(plan) == {"a@plays": "a@trains"}


def test_where_nothing_installed_trains_the_architecture_nobody_is_named() -> None:
    plan = make_plan(
        Suite(), a_catalog(plain_model("a"), Player("plays"), replace(plain_model("b"), architecture=BILSTM))
    )
    assert trainers(plan) == {"a@plays": "None", "b@plays": "None"}


def test_a_clash_of_names_elsewhere_does_not_stop_a_plan_that_did_not_ask_for_it() -> None:
    catalog = a_catalog(plain_model("a"), plain_model("b"), plain_model("b"), Player("plays"), PlainRuntime("trains"))
    plan = make_plan(Suite(models=["a"], runtimes=["plays"]), catalog)
    assert trainers(plan) == {"a@plays": "a@trains"}


@pytest.mark.parametrize("models", [["b"], ["*"], ["b*"]])
def test_a_clash_of_names_that_was_asked_for_is_refused(models: list[str]) -> None:
    catalog = a_catalog(plain_model("a"), plain_model("b"), plain_model("b"), Player("plays"))
    with pytest.raises(HarnessError, match="model 'b' is provided by both"):
        make_plan(Suite(models=models), catalog)


def test_the_baseline_of_an_architecture_is_the_first_wanted_one_it_has_in_this_run() -> None:
    suite = Suite(models=["a", "b"], baselines=["c@fancy", "a@plays", "a@trains"])
    assert make_plan(suite, BOTH).baselines == {"lstm": Variant("a", "plays")}
    catalog = a_catalog(plain_model("a"), replace(plain_model("bi"), architecture=BILSTM), PlainRuntime("trains"))
    plan = make_plan(Suite(baselines=["bi@trains"]), catalog)
    assert plan.baselines == {"lstm": Variant("a", "trains"), "bilstm": Variant("bi", "trains")}


@pytest.mark.parametrize("baselines", [[], ["c@fancy"]])
def test_without_a_wanted_one_the_baseline_is_the_yardstick_or_else_the_first_variant(baselines: list[str]) -> None:
    assert make_plan(Suite(models=["a", "b"], baselines=baselines), BOTH).baselines == {"lstm": Variant("b", "trains")}
    assert make_plan(Suite(models=["a"], baselines=baselines), BOTH).baselines == {"lstm": Variant("a", "trains")}
    plays = Suite(models=["a", "b"], runtimes=["plays"], baselines=baselines)
    assert make_plan(plays, BOTH).baselines == {"lstm": Variant("a", "plays")}  # the yardstick is not in this run


def baselines(plan: Plan) -> dict[str, str | None]:
    return {str(t.variant): t.baseline for t in plan.of("latency")}


def test_every_latency_is_compared_with_its_own_architectures_baseline_and_nothing_else_is_compared() -> None:
    catalog = a_catalog(
        plain_model("a"), plain_model("b"), replace(plain_model("bi"), architecture=BILSTM), PlainRuntime("trains")
    )
    plan = make_plan(Suite(baselines=["b@trains"]), catalog)
    assert baselines(plan) == {"a@trains": "b@trains", "b@trains": "b@trains", "bi@trains": "bi@trains"}
    assert {t.baseline for t in plan.trials if t.kind in ("parity", "accuracy")} == {None}


# ---------------------------------------------------------------------------------------------------- interpreters


TWO = {"new": "/venvs/new/bin/python", "old": "/venvs/old/bin/python"}


def test_every_variant_is_planned_in_every_interpreter_and_says_in_which() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["trains", "plays"], pythons=TWO), BOTH)
    assert variants(plan) == ["a@trains[new]", "a@trains[old]", "a@plays[new]", "a@plays[old]"]
    for kind in ("parity", "accuracy", "latency"):
        assert {str(t.variant) for t in plan.of(kind)} == set(variants(plan))
    assert {t.id for t in plan.trials} == {t.row(OWNERS)["trial"] for t in plan.trials}
    row = plan.trials[0].row(OWNERS)
    assert (row["variant"], row["model"], row["runtime"], row["python"]) == ("a@trains[new]", "a", "trains", "new")


def test_without_interpreters_a_row_names_none() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["trains"]), BOTH)
    assert {t.row(OWNERS)["python"] for t in plan.trials} == {None}


def test_among_interpreters_a_variant_is_compared_with_itself_in_the_first_of_them() -> None:
    plan = make_plan(Suite(models=["a", "b"], runtimes=["trains"], pythons=TWO), BOTH)
    assert baselines(plan) == {
        "a@trains[new]": "a@trains[new]",
        "a@trains[old]": "a@trains[new]",
        "b@trains[new]": "b@trains[new]",
        "b@trains[old]": "b@trains[new]",
    }


def test_a_variant_is_scored_on_weights_that_were_trained_in_its_own_interpreter() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["plays", "trains"], pythons=TWO), BOTH)
    assert trainers(plan) == {
        "a@plays[new]": "a@trains[new]",
        "a@plays[old]": "a@trains[old]",
        "a@trains[new]": "a@trains[new]",
        "a@trains[old]": "a@trains[old]",
    }


def test_other_baselines_make_no_sense_among_interpreters() -> None:
    with pytest.raises(
        HarnessError, match="variants in several interpreters are compared with themselves in the first"
    ):
        make_plan(Suite(pythons=TWO, baselines=["b@trains"]), BOTH)


def test_in_one_interpreter_that_has_a_name_variants_are_compared_as_without_it() -> None:
    only = {"only": "python3"}
    plan = make_plan(Suite(models=["a", "b"], runtimes=["trains"], pythons=only, baselines=["a@trains"]), BOTH)
    assert baselines(plan) == {"a@trains[only]": "a@trains[only]", "b@trains[only]": "a@trains[only]"}
    assert [str(t.variant) for t in plan.of("calibration")] == ["a@trains[only]"]


# ---------------------------------------------------------------------------------------------------- twins


def twins(plan: Plan) -> list[tuple[str, str | None, int, str]]:
    return [(str(t.variant), t.scenario, t.twin, t.session) for t in plan.of("calibration")]


def test_the_baseline_has_a_twin_of_its_first_scenario_with_a_session_of_its_own() -> None:
    plan = make_plan(Suite(models=["a", "b"], runtimes=["plays", "trains"]), BOTH)
    assert twins(plan) == [("b@trains", "single-stream", 1, "b@trains#1")]
    (twin,) = plan.of("calibration")
    (original,) = [t for t in plan.of("latency") if (str(t.variant), t.scenario) == ("b@trains", "single-stream")]
    assert replace(twin, id=original.id, kind="latency", twin=0) == original
    assert [t.session for t in plan.of("latency") if str(t.variant) == "b@trains"] == ["b@trains"] * 3
    assert twin.row(OWNERS)["twin"] == 1


def test_there_are_as_many_twins_as_wanted_and_each_has_its_own_session() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["trains"], latency=Latency(scenarios=["offline"], twins=3)), BOTH)
    assert twins(plan) == [("a@trains", "offline", k, f"a@trains#{k}") for k in (1, 2, 3)]
    assert len({t.id for t in plan.trials}) == len(plan.trials)
    assert twins(make_plan(Suite(latency=Latency(twins=0)), BOTH)) == []
    assert twins(make_plan(Suite(latency=Latency(scenarios=[])), BOTH)) == []


def test_every_task_has_a_twin() -> None:
    tasks = (TINY, replace(TINY, name="other"))
    plan = make_plan(Suite(), a_catalog(plain_model("a"), plain_model("b"), PlainRuntime("trains"), tasks=tasks))
    assert [(t.task, str(t.variant)) for t in plan.of("calibration")] == [("tiny", "a@trains"), ("other", "a@trains")]


def test_of_several_architectures_the_first_that_computes_something_has_the_twin() -> None:
    nothing = Architecture("nothing", 1, lambda size: {}, lambda weights, inputs, size: Outputs(inputs.x, ()), ())
    catalog = a_catalog(
        replace(plain_model("zero"), architecture=nothing),
        replace(plain_model("bi"), architecture=BILSTM),
        plain_model("a"),
        PlainRuntime("trains"),
    )
    plan = make_plan(Suite(), catalog)
    assert plan.floors == ("nothing",)
    assert twins(plan) == [("bi@trains", "single-stream", 1, "bi@trains#1")]
    assert twins(make_plan(Suite(models=["zero"]), catalog)) == []


def test_among_interpreters_the_first_ones_baseline_has_the_twin() -> None:
    plan = make_plan(Suite(models=["a", "b"], runtimes=["trains"], pythons=TWO), BOTH)
    assert twins(plan) == [("a@trains[new]", "single-stream", 1, "a@trains[new]#1")]


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("zzz@trains", "no model is called 'zzz'; there are: a, b, c"),
        ("a@train", "no runtime is called 'train'; did you mean 'trains'?"),
    ],
)
def test_a_baseline_that_is_not_installed_is_refused_with_near_names(baseline: str, said: str) -> None:
    with pytest.raises(HarnessError) as raised:
        make_plan(Suite(baselines=["b@trains", baseline]), BOTH)
    assert str(raised.value) == said


def test_the_yardstick_is_the_architectures_own_on_the_runtime_that_trains_it_asked_for_or_not() -> None:
    plan = make_plan(Suite(models=["a"], runtimes=["plays"]), BOTH)
    assert plan.yardsticks == {"lstm": Variant("b", "trains")}
    assert make_plan(Suite(), a_catalog(plain_model("a"), PlainRuntime("trains"))).yardsticks == {}


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*"], ["x-one", "x-two", "y-one"]),
        (["x-*"], ["x-one", "x-two"]),
        (["?-one"], ["x-one", "y-one"]),
        (["y-one", "x-*"], ["y-one", "x-one", "x-two"]),
        (["x-two", "*"], ["x-two", "x-one", "y-one"]),
        (["x-one", "x-one"], ["x-one"]),
    ],
)
def test_patterns_pick_names_in_the_order_given_and_each_once(patterns: list[str], found: list[str]) -> None:
    catalog = a_catalog(plain_model("x-one"), plain_model("x-two"), plain_model("y-one"), PlainRuntime("r"))
    assert variants(make_plan(Suite(models=patterns), catalog)) == [f"{name}@r" for name in found]


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        (Suite(models=["zzz"]), "no model is called 'zzz'"),
        (Suite(models=["zzz-*"]), "no model matches 'zzz-*'; there are: a, b, c"),
        (Suite(runtimes=["train"]), "no runtime is called 'train'; did you mean 'trains'?"),
        (Suite(tasks=["tinny"]), "no task is called 'tinny'; did you mean 'tiny'?"),
        (Suite(models=[]), "nothing to run: no model is installed or chosen; `harness list` shows what there is"),
        (Suite(tasks=[]), "nothing to run: no task"),
        (
            Suite(models=["c"], runtimes=["trains", "plays"]),
            "nothing to run: none of the runtimes trains, plays accepts any of the models c",
        ),
    ],
)
def test_a_plan_with_nothing_to_run_says_why(suite: Suite, said: str) -> None:
    with pytest.raises(HarnessError) as raised:
        make_plan(suite, BOTH)
    assert str(raised.value).startswith(said)


def test_without_a_task_installed_the_plan_says_what_to_install() -> None:
    with pytest.raises(HarnessError, match="no task is installed; install rnn-harness-tasks"):
        make_plan(Suite(), a_catalog(plain_model(), PlainRuntime(), tasks=()))


def test_the_layer_is_the_recipes_unless_the_suite_overrides_it() -> None:
    tasks = (replace(TINY, recipe=Recipe(hidden_size=6, num_layers=2)),)
    catalog = a_catalog(plain_model(), PlainRuntime(), tasks=tasks)
    sizes = [
        make_plan(Suite(layer=layer), catalog).trials[0].size
        for layer in (Layer(), Layer(hidden_size=9), Layer(num_layers=1), Layer(hidden_size=9, num_layers=3))
    ]
    assert sizes == [LayerSize(3, 6, 2), LayerSize(3, 9, 2), LayerSize(3, 6, 1), LayerSize(3, 9, 3)]


def test_device_dtype_and_threads_are_the_suites_in_every_trial() -> None:
    plan = make_plan(Suite(device="cuda:1", dtype="float64", threads=3), BOTH)
    assert {(t.device, t.dtype, t.threads) for t in plan.trials} == {("cuda:1", "float64", 3)}


def test_two_models_that_mean_different_things_by_one_architecture_are_refused() -> None:
    other = Architecture(
        "lstm", 1, LSTM.weight_shapes, lambda weights, inputs, size: LSTM.reference(weights, inputs, size)
    )
    catalog = a_catalog(plain_model("a"), replace(plain_model("z"), architecture=other), PlainRuntime())
    with pytest.raises(HarnessError) as raised:
        make_plan(Suite(), catalog)
    assert str(raised.value) == (
        "models 'a' and 'z' mean different things by architecture 'lstm'; one of them must rename it"
    )
    assert variants(make_plan(Suite(models=["a"]), catalog)) == ["a@plain"]


def test_a_trial_is_scored_only_on_weights_of_its_own_architecture_whatever_that_is_called() -> None:
    other = Architecture(
        "lstm", 1, LSTM.weight_shapes, lambda weights, inputs, size: LSTM.reference(weights, inputs, size)
    )
    catalog = a_catalog(
        plain_model("a"),
        replace(plain_model("z", yardstick=True), architecture=other, framework="odd"),
        Player("plays"),
        PlainRuntime("odd", frozenset({"odd"})),
    )
    plan = make_plan(Suite(models=["a"], runtimes=["plays"]), catalog)
    assert trainers(plan) == {"a@plays": "None"}
    assert plan.yardsticks == {}


def test_check_gives_parity_trials_of_every_variant_that_a_name_means_at_every_size() -> None:
    sizes = (LayerSize(5, 6, 1), LayerSize(5, 6, 2))

    def checked(name: str) -> list[tuple[str, int]]:
        plan = check_plan(BOTH, name, sizes, "cpu", "float64")
        assert {(t.kind, t.dtype) for t in plan.trials} == {("parity", "float64")}
        return [(str(t.variant), t.size.num_layers) for t in plan.trials]

    assert checked("a@plays") == [("a@plays", 1), ("a@plays", 2)]
    assert checked("c") == [("c@fancy", 1), ("c@fancy", 2)]
    for name in ("trains", "@trains"):
        assert [variant for variant, layers in checked(name) if layers == 1] == ["a@trains", "b@trains"]


def test_a_check_of_a_plugin_is_of_all_it_gives_on_and_with_what_others_give() -> None:
    size = (LayerSize(5, 6),)

    def checked(name: str) -> list[str]:
        return [str(trial.variant) for trial in check_plan(apart, name, size, "cpu", "float32").trials]

    mine, theirs = Plugin("mine", "rnn-mine", "1.0"), Plugin("theirs", "rnn-theirs", "1.0")
    given = [("model", plain_model("a"), mine), ("model", plain_model("b"), theirs), ("task", TINY, mine)]
    runtimes = [("runtime", Player("plays"), theirs), ("runtime", Player("mine"), mine)]
    entries = (Entry(kind, value.name, value, plugin) for kind, value, plugin in (*given, *runtimes))  # type: ignore[attr-defined]
    apart = Catalog((mine, theirs), tuple(entries))
    assert checked("mine") == ["a@plays", "a@mine", "b@mine"]
    assert checked("theirs") == ["a@plays", "b@plays", "b@mine"]
    assert checked("tiny") == []
    assert check_plan(apart, "tiny", size, "cpu", "float32").tasks == ("tiny",)
    assert check_plan(apart, "mine", size, "cpu", "float32").tasks == ("tiny",)
    assert check_plan(apart, "theirs", size, "cpu", "float32").tasks == ()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("zzz", "no model is called 'zzz'"),
        ("zzz@plays", "no model is called 'zzz'"),
        ("a@zzz", "no runtime is called 'zzz'"),
        ("@train", "no runtime is called 'train'; did you mean 'trains'?"),
        ("Trains", "no model is called 'Trains'; there are: a, b, c"),
        ("a@Trains", "no runtime is called 'Trains'; did you mean 'trains'?"),
        ("c@trains", "nothing to run: none of the runtimes trains accepts any of the models c"),
        ("", "--models"),
        ("../x", "--models"),
    ],
)
def test_check_refuses_a_name_that_means_nothing(name: str, said: str) -> None:
    with pytest.raises(HarnessError) as raised:
        check_plan(BOTH, name, (LayerSize(5, 6),), "cpu", "float32")
    assert str(raised.value).startswith(said)


def test_a_trials_row_names_its_variant_and_the_distributions_that_give_it() -> None:
    plan = make_plan(override(Suite(), models=["a"], runtimes=["plays"], seeds=1), BOTH)
    trial: Trial = plan.of("accuracy")[0]
    row = trial.row(OWNERS)
    assert row["trial"] == trial.id
    assert (row["variant"], row["model"], row["runtime"], row["trained_by"]) == ("a@plays", "a", "plays", "a@trains")
    assert (row["distribution"], row["distribution_version"]) == ("rnn-here", "1.0")
    assert (row["runtime_distribution"], row["runtime_distribution_version"]) == ("rnn-there", "2.0")
    assert (row["task_distribution"], row["task_distribution_version"]) == ("rnn-elsewhere", "3.0")
    assert (row["input_size"], row["hidden_size"], row["num_layers"]) == (3, 6, 1)


def test_an_exclamation_mark_leaves_out_what_it_means_and_alone_means_everything_else() -> None:
    assert variants(make_plan(Suite(models=["*", "!a"], runtimes=["!fancy"]), BOTH)) == ["b@trains", "b@plays"]
    assert variants(make_plan(Suite(models=["!b", "!c"], runtimes=["*", "!f*"]), BOTH)) == ["a@trains", "a@plays"]


def test_a_pattern_that_leaves_out_nothing_is_fine_and_a_misspelt_name_is_not() -> None:
    assert variants(make_plan(Suite(models=["a", "!z*"], runtimes=["plays"]), BOTH)) == ["a@plays"]
    with pytest.raises(HarnessError, match="no runtime is called 'playz'; did you mean 'plays'"):
        make_plan(Suite(models=["a"], runtimes=["!playz"]), BOTH)


def test_a_sweep_over_shapes_is_more_points_of_one_setting() -> None:
    suite = override(
        Suite(models=["a"], runtimes=["trains"], seeds=0), sweep={"batch": [2, 4], "time": [3, 6]}, twins=0
    )
    plan = make_plan(suite, BOTH)
    assert [trial.point for trial in plan.of("latency")] == [
        *(("single-stream", 1, 3), ("single-stream", 1, 6)),
        *(("offline", 2, 3), ("offline", 2, 6), ("offline", 4, 3), ("offline", 4, 6)),
        ("training-step", 8, 5),
    ]
    assert len(plan.of("parity")) == len(plan.settings()) == 1


def test_a_sweep_over_sizes_dtypes_and_threads_is_a_setting_a_combination_and_accuracy_is_trained_in_the_first() -> (
    None
):
    sweep = {"hidden_size": [6, 12], "num_layers": [1, 2], "dtype": ["float64", "float32"], "threads": [1, 2]}
    plan = make_plan(override(Suite(models=["a"], runtimes=["trains"], seeds=1), sweep=sweep), BOTH)
    found = [(s.size.hidden_size, s.size.num_layers, s.dtype, s.threads) for s in plan.settings()]
    assert found == [(h, n, d, t) for h in (6, 12) for n in (1, 2) for d in ("float64", "float32") for t in (1, 2)]
    assert len(plan.of("parity")) == 16
    (scored,) = plan.of("accuracy")
    assert scored.setting == plan.settings()[0]
    (twin,) = plan.of("calibration")
    assert twin.setting == plan.settings()[0]


def test_a_value_that_is_swept_over_twice_is_one_point() -> None:
    suite = override(Suite(models=["a"], runtimes=["plays"], seeds=0), sweep={"time": [5, 5], "threads": [1, 1]})
    plan = make_plan(suite, BOTH)
    assert [trial.point for trial in plan.of("latency")] == [("single-stream", 1, 5), ("offline", 32, 5)]


def test_a_plan_of_more_trials_than_are_allowed_is_refused() -> None:
    suite = override(Suite(seeds=0), sweep={"batch": list(range(1, 200))}, most_trials=100)
    with pytest.raises(HarnessError, match=r"the plan has more than 100 trials: .* \(--most-trials\)"):
        make_plan(suite, BOTH)


def test_a_grid_that_is_too_large_to_be_written_down_is_refused_before_it_is() -> None:
    points = list(range(1, 1000))
    suite = override(Suite(seeds=0), sweep={"batch": points, "time": points, "hidden_size": points})
    with pytest.raises(HarnessError, match="the plan has more than 2000 trials"):
        make_plan(suite, BOTH)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"scenarios": ["padded"]}, "nothing to time: padded is for none of these variants on these tasks"),
        ({"scenarios": ["padded", "packed"]}, "nothing to time: padded, packed are for none of these variants"),
        ({"scenarios": ["single-stream"], "sweep": {"batch": [1, 2]}}, "--sweep batch: none of the scenarios here"),
        ({"scenarios": ["training-step"], "sweep": {"time": [1, 2]}}, "--sweep time: none of the scenarios here"),
    ],
)
def test_what_is_asked_for_and_is_for_nothing_here_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(HarnessError, match=said):
        make_plan(override(Suite(seeds=0), **changes), BOTH)


def test_batches_of_real_lengths_are_swept_over_too() -> None:
    ragged = replace(TINY, name="ragged", ragged=True)
    suite = override(Suite(seeds=0), scenarios=["packed"], sweep={"batch": [2, 4]}, twins=0)
    plan = make_plan(suite, a_catalog(plain_model("one"), Player("plays"), tasks=(ragged,)))
    assert [trial.point for trial in plan.of("latency")] == [("packed", 2, 5), ("packed", 4, 5)]


def test_rows_of_real_lengths_are_timed_on_ragged_tasks_and_a_backward_direction_packed_only() -> None:
    both_ways = replace(plain_model("both"), architecture=BILSTM)
    ragged = replace(TINY, name="ragged", ragged=True)
    catalog = a_catalog(plain_model("one"), both_ways, Player("plays"), tasks=(TINY, ragged))
    suite = override(Suite(), scenarios=["padded", "bucketed", "packed"], offline_batch=4, seeds=0, twins=0)
    found = [(t.variant.model, t.task, t.scenario, t.batch, t.time) for t in make_plan(suite, catalog).of("latency")]
    assert found == [
        *(("one", "ragged", "padded", 4, 5), ("one", "ragged", "bucketed", 4, 5), ("one", "ragged", "packed", 4, 5)),
        ("both", "ragged", "packed", 4, 5),
    ]


@dataclass(frozen=True)
class NeedsAnAccelerator(Player):
    needs_accelerator: bool = True


def test_on_a_cpu_a_runtime_that_needs_an_accelerator_is_planned_only_if_it_is_named() -> None:
    catalog = a_catalog(plain_model("a"), Player("runs"), NeedsAnAccelerator("needs"))
    for runtimes, planned in (
        (["*"], ["a@runs"]),
        (["n*", "runs"], ["a@runs"]),
        (["runs", "needs"], ["a@runs", "a@needs"]),
        (["*", "needs"], ["a@runs", "a@needs"]),
    ):
        assert variants(make_plan(Suite(runtimes=runtimes), catalog)) == planned, runtimes
    assert variants(make_plan(Suite(device="toy"), catalog)) == ["a@runs", "a@needs"]


def test_that_nothing_but_such_runtimes_is_meant_is_said_with_the_next_step() -> None:
    catalog = a_catalog(plain_model("a"), NeedsAnAccelerator("needs"))
    with pytest.raises(HarnessError, match=r"^nothing to run: these runtimes need an accelerator; name one with --dev"):
        make_plan(Suite(), catalog)


def test_caches_are_said_to_be_cold_of_what_is_timed_alone() -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    trials = make_plan(Suite(latency=Latency(cold_cache=True), loads=["server"]), catalog).trials
    assert {t.kind for t in trials if t.caches == "cold"} == {"latency", "calibration"}
    assert {t.kind for t in trials if t.caches is None} == {"parity", "accuracy", "load"}


@pytest.mark.parametrize(("threads", "device"), [(1, "cpu"), (2, "toy")])
def test_caches_of_one_core_and_of_a_device_can_be_emptied(threads: int, device: str) -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    assert make_plan(Suite(latency=Latency(cold_cache=True), threads=threads, device=device), catalog).trials


def test_cold_caches_of_loads_alone_are_refused() -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    suite = Suite(latency=Latency(cold_cache=True, scenarios=[]), loads=["server"])
    with pytest.raises(HarnessError, match=r"^--cold-cache: no latency is measured here, and loads find the caches as"):
        make_plan(suite, catalog)


@pytest.mark.parametrize("changes", [{"threads": 2}, {"sweep": {"threads": [1, 2]}}])
def test_caches_of_several_cores_cannot(changes: dict[str, Any]) -> None:
    catalog = a_catalog(plain_model("a"), PlainRuntime("trains"))
    with pytest.raises(HarnessError, match=r"^--cold-cache: on the cpu the caches of one core can be emptied"):
        make_plan(override(Suite(), cold_cache=True, **changes), catalog)
