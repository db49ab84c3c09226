"""A layer of one's own without a package: `harness.wrap`, `--model` and `--weights`, and the oracle's own process."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import save_file
from strangers import World
from test_docs import fences, text_of

import harness as package
from harness import HarnessError, Inputs, LayerSize, Unsupported
from harness.catalog import OWN_MODEL_VARIABLE
from harness.cli import main
from harness.named_layer import NamedLayer, target_of
from harness.oracle import Oracle, Subject
from harness.own_model import OwnModel, harness_models
from harness.parity import probe_weights
from harness.store import load
from harness.wrapping import name_of

if TYPE_CHECKING:
    from harness.contract import FloatArray

RUNTIMES = """
import harness
import numpy as np
from strangers import TINY

class Session:
    def __init__(self, layer, deaf):
        self.layer, self.deaf = layer, deaf
    def prepare(self, inputs):
        return inputs.x, None if self.deaf or inputs.state is None else inputs.state[0]
    def run(self, prepared):
        return self.layer(*prepared)
    def fetch(self, raw):
        y, h_n = raw
        return harness.Outputs(y, (h_n,))
    def close(self):
        pass

class Deaf:
    name, frameworks, description, deaf = "deaf", frozenset({"numbers"}), "hears no state", True
    def open(self, model, weights, options):
        size = options.size
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        layer.parameters = {name: array.astype(options.dtype) for name, array in weights.items()}
        return harness.ByLength(Session(layer, self.deaf))

class Numbers(Deaf):
    name, description, deaf = "numbers", "NumPy", False
    def initial_weights(self, model, size, seed):
        layer = model.build(input_size=size.input_size, hidden_size=size.hidden_size, num_layers=size.num_layers)
        return {name: array.astype("float32") for name, array in layer.parameters.items()}
    def open_trainer(self, *arguments):
        raise harness.Unsupported("numbers learn nothing")

@harness.hookimpl
def harness_runtimes():
    return [Deaf(), Numbers()]

@harness.hookimpl
def harness_tasks():
    return [TINY]
"""
LAYERS = """
import os
from functools import partial
import numpy as np

with open("imported", "a") as file:
    print(os.getpid(), file=file)

class Decay:
    "h = tanh(w x + u h), and the state is one array."
    def __init__(self, input_size, hidden_size):
        self.parameters = {"w": np.ones((hidden_size, input_size)), "u": np.ones((hidden_size, hidden_size))}
    def __call__(self, x, state=None):
        w, u = self.parameters["w"], self.parameters["u"]
        h = np.zeros((len(x), len(u)), x.dtype) if state is None else state[0]
        y = []
        for t in range(x.shape[1]):
            h = np.tanh(x[:, t] @ w.T + h @ u.T)
            y.append(h)
        return np.stack(y, axis=1), h[None]

def small():
    return Decay(3, 5)

def other():
    return Decay(7, 5)

finished = Decay(3, 4)

def turned(input_size, hidden_size, num_layers=1):
    layer = Decay(input_size, hidden_size)
    return lambda x, state=None: None

class Turned(Decay):
    def __call__(self, x, state=None):
        y, h_n = super().__call__(x, state)
        return y.swapaxes(0, 1), h_n

def asks_more(input_size, hidden_size, depth):
    return Decay(input_size, hidden_size)

class Headed(Decay):
    def __init__(self, input_size, hidden_size):
        super().__init__(input_size, hidden_size)
        self.parameters["head.weight"] = np.ones((hidden_size, hidden_size))

def stacked(input_size, hidden_size, num_layers=1):
    return Decay(input_size, hidden_size)

def by_the_way(*sizes, **more):
    return Decay(*sizes, **more)

of_one_size = partial(Decay, input_size=3, hidden_size=5)
of_one_size_by_place = partial(by_the_way, 3, 5)
half_bound = partial(Decay, hidden_size=5)
two_deep = partial(stacked, num_layers=2)

def dies():
    os._exit(5)

number = 3
"""
OTHERS = """
import harness
import stranger_numbers as numbers

class Jaxy(numbers.Numbers):
    name, frameworks = "jaxy", frozenset({"jax"})
    def initial_weights(self, *arguments):
        raise harness.HarnessError("jax knows no such layer")

@harness.hookimpl
def harness_runtimes():
    return [Jaxy()]
"""
SUITE = "tasks = ['tiny']\nseeds = 2\ntrial_seconds = 60\n[latency]\nscenarios = []\n"
SIZE = LayerSize(3, 5)
TRAINERS = (("jax", "another"), ("numbers", "numbers"))  # with OTHERS


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A user's folder with a module of layers, and a stranger's runtimes that take them: one right, one wrong."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)
    Path("mine.py").write_text(LAYERS, encoding="utf-8")
    Path("suite.toml").write_text(SUITE, encoding="utf-8")
    world = World(tmp_path / "plugins", monkeypatch)
    world.add("numbers", RUNTIMES)
    return world


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["run", "suite.toml", "--models", "", "--quiet", "--out", "out", *arguments])


def rows(kind: str) -> dict[str, tuple[str, str]]:
    """Status and reason of every trial of a kind, by variant."""
    trials = load("out").trials
    found = trials[trials["kind"] == kind].to_dict("records")
    return {row["variant"]: (row["status"], row["reason"]) for row in found}


def own(target: str, **facts: Any) -> OwnModel:
    return OwnModel(target, str(Path.cwd()), "nobody", "0", trainers=(("numbers", "numbers"),), **facts)


def weights_of(size: LayerSize, head: tuple[int, ...] = ()) -> dict[str, FloatArray]:
    rng = np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "w": (size.hidden_size, size.input_size),
        "u": (size.hidden_size, size.hidden_size),
    }
    shapes |= {"head.weight": (*head, size.hidden_size), "head.bias": head} if head else {}
    return {name: rng.uniform(-0.3, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


class TestTheOracle:
    def test_is_the_layer_itself_in_float64_in_a_process_of_its_own(self, world: World) -> None:
        model = own("mine:Decay").model()
        weights, x = weights_of(SIZE), np.random.default_rng(0).standard_normal((3, 4, 3)).astype(np.float32)
        state = np.full((1, 3, 5), 0.5, np.float32)
        exact = {name: array.astype(np.longdouble) for name, array in weights.items()}
        found = model.architecture.reference(exact, Inputs(x, (state,)), SIZE)
        h = state[0].astype(np.float64)
        for t in range(4):
            h = np.tanh(x[:, t].astype(np.float64) @ weights["w"].T + h @ weights["u"].T)
        assert found.y.dtype == np.float64
        assert np.array_equal(found.state[0][0], found.y[:, -1])
        assert np.allclose(found.y[:, -1], h, rtol=0, atol=1e-14)
        assert model.architecture.reference(weights, Inputs(x), SIZE).y.dtype == np.float32
        assert model.architecture.weight_shapes(SIZE) == {"w": (5, 3), "u": (5, 5)}
        assert "mine" not in sys.modules
        assert str(os.getpid()) not in Path("imported").read_text(encoding="utf-8").split()

    def test_rests_while_it_is_not_asked_and_ends_with_its_asker(self, world: World) -> None:
        oracle = Oracle(Subject("decay", NamedLayer("mine:Decay", str(Path.cwd())), "numbers"))
        oracle.weight_shapes(SIZE)
        (child,) = (p for p in psutil.Process().children() if "harness.oracle" in p.cmdline())

        def works_meanwhile() -> bool:
            before = child.cpu_times()
            threading.Event().wait(0.2)
            return bool(child.cpu_times() != before)

        assert not all(works_meanwhile() for _ in range(5))  # it may yet be at the end of its answer
        assert child.status() == psutil.STATUS_SLEEPING
        assert oracle._process
        assert oracle._process.stdin
        oracle._process.stdin.close()
        assert oracle._process.wait(10) == 0

    def test_that_is_killed_is_told_of_and_starts_again(self, world: World) -> None:
        oracle = Oracle(Subject("decay", NamedLayer("mine:Decay", str(Path.cwd())), "numbers"))
        x = np.ones((1, 1, 3))
        first = oracle.reference(weights_of(SIZE), Inputs(x), SIZE)
        assert oracle._process
        oracle._process.send_signal(signal.SIGKILL)
        with pytest.raises(HarnessError, match="the oracle of model 'decay' ended with exit code -9"):
            oracle.reference(weights_of(SIZE), Inputs(x), SIZE)
        assert np.array_equal(oracle.reference(weights_of(SIZE), Inputs(x), SIZE).y, first.y)

    @pytest.mark.parametrize(
        ("target", "facts"),
        [
            ("mine:Decay", {"directions": 1, "states": 1, "size": None}),
            ("mine:small", {"directions": 1, "states": 1, "size": SIZE}),
            ("mine:finished", {"directions": 1, "states": 1, "size": LayerSize(3, 4)}),
            ("mine:of_one_size", {"directions": 1, "states": 1, "size": SIZE}),
            ("mine:of_one_size_by_place", {"directions": 1, "states": 1, "size": SIZE}),
        ],
    )
    def test_finds_out_what_a_layer_is(self, world: World, target: str, facts: dict[str, Any]) -> None:
        model = own(target).model()
        assert model.architecture.directions == facts["directions"]
        assert model.architecture.state_names == ("h", "c")[: facts["states"]]
        assert model.size == facts["size"]
        assert model.yardstick

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("mine:Turned", r"gives y \(3, 2, 6\) and state \(1, 2, 6\) for x \(2, 3, 5\); y must be \(B, T, D\*H\)"),
            (
                "mine:asks_more",
                "'mine:asks_more' asks for depth; a layer is built by what takes input_size, hidden_size",
            ),
            ("mine:dies", "the oracle of model 'mine.dies' ended with exit code 5"),
            ("mine:Headed", r"^'head\.\*' names the harness's own head; rename the submodule of 'mine:Headed'$"),
            ("mine:half_bound", "'mine:half_bound' asks for only input_size; a layer is built by"),
            ("mine:number", "'mine:number' is a int, which cannot be called"),
            ("mine:nothing", "'mine:nothing': there is no 'nothing' in 'mine'"),
            ("mine.part:Decay", "no module 'mine.part'"),
        ],
    )
    def test_says_why_a_layer_cannot_be_used(self, world: World, target: str, said: str) -> None:
        with pytest.raises(HarnessError, match=said) as found:
            own(target).model()
        assert "\n" not in str(found.value)

    def test_refuses_another_size_than_the_only_one(self, world: World) -> None:
        model = own("mine:small").model()
        with pytest.raises(Unsupported, match="'mine:small' has one size, I=3 H=5 L=1; asked for was I=2 H=5 L=1"):
            model.architecture.weight_shapes(LayerSize(2, 5))
        with pytest.raises(Unsupported, match="takes no num_layers, so it has one layer and not 2"):
            own("mine:Decay").model().architecture.weight_shapes(LayerSize(3, 5, 2))

    def test_takes_from_a_partial_what_it_binds(self, world: World) -> None:
        model = own("mine:two_deep").model()
        assert model.size is None
        assert model.architecture.weight_shapes(LayerSize(3, 5, 2)) == {"w": (5, 3), "u": (5, 5)}
        with pytest.raises(Unsupported, match="'mine:two_deep' takes no num_layers, so it has 2 layers and not 1"):
            model.architecture.weight_shapes(LayerSize(3, 5))


class TestTheFramework:
    """Two plugins train: one that comes first and knows other layers, and the one that knows these."""

    def test_is_the_first_under_which_the_layer_runs(self, world: World) -> None:
        world.add("another", OTHERS)
        mine = OwnModel.named("mine:Decay").with_oracle(world.catalog())
        assert mine.trainers == TRAINERS
        model = mine.model()
        assert model.framework == "numbers"
        with mine.with_facts(model).handed_over():
            assert [given.name for given in harness_models()] == ["mine.decay"]

    def test_of_a_layer_that_runs_nowhere_is_the_one_that_it_is_derived_from(self, world: World) -> None:
        world.add("another", OTHERS)
        Path("derived.py").write_text("import numbers\nclass Headed(numbers.Number):\n    pass\n", encoding="utf-8")
        derived = OwnModel("derived:Headed", str(Path.cwd()), "nobody", "0", trainers=TRAINERS)
        with pytest.raises(HarnessError, match="'Headed' object has no attribute 'parameters'"):
            derived.model()
        with pytest.raises(HarnessError, match="jax knows no such layer"):
            replace(derived, target="mine:Headed").model()


class TestTheOrigin:
    def test_of_an_installed_module_is_its_package_whatever_folder_has_its_name(self, world: World) -> None:
        Path("click").mkdir()
        found = OwnModel.named("click:Group")
        assert (found.distribution, found.version) == ("click", version("click"))

    def test_of_a_package_without_an_init_file_is_the_source_in_it(self, world: World) -> None:
        Path("parts").mkdir()
        found = []
        for text in (LAYERS, LAYERS + "\n# another thought\n"):
            Path("parts/mine.py").write_text(text, encoding="utf-8")
            found.append(OwnModel.named("parts.mine:Decay"))
        assert {mine.distribution for mine in found} == {"parts.mine:Decay"}
        assert found[0].version != found[1].version


class TestGivenWeights:
    def test_are_what_is_checked_and_timed(self, world: World) -> None:
        save_file(weights_of(SIZE, (2,)), "w.safetensors")
        model = own("mine:Decay", weights=str(Path("w.safetensors").resolve())).model()
        found = probe_weights(model.architecture, SIZE, "float64")
        expected = weights_of(SIZE)
        assert found.keys() == expected.keys()
        assert all(np.array_equal(found[name], expected[name].astype(np.float64)) for name in found)
        assert not np.array_equal(probe_weights(model.architecture, SIZE, seed=1)["w"], expected["w"])

    @pytest.mark.parametrize(
        ("arrays", "said"),
        [
            ({"w": (5, 3)}, "of size I=3 H=5 L=1 (missing: u); give the layer's own state_dict"),
            ({"w": (5, 3), "u": (5, 5), "b": (5,)}, "(unexpected: b)"),
            ({"w": (5, 3), "u": (4, 4)}, "(of another shape: u (4, 4) for (5, 5))"),
        ],
    )
    def test_that_do_not_fit_are_one_line_before_anything_runs(
        self, world: World, arrays: dict[str, tuple[int, ...]], said: str
    ) -> None:
        save_file({name: np.zeros(shape, np.float32) for name, shape in arrays.items()}, "w.safetensors")
        result = run("--model", "mine:small", "--weights", "w.safetensors")
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert not Path("out").exists()

    @pytest.mark.slow
    def test_with_a_head_are_scored_once_and_never_trained(self, world: World) -> None:
        save_file(weights_of(SIZE, (2,)), "w.safetensors")
        result = run("--model", "mine:small", "--weights", "w.safetensors", "--runtimes", "numbers")
        assert result.exit_code == 0, result.output
        assert rows("accuracy") == {"mine.small@numbers": ("ok", "")}
        finished = load("out")
        assert len(finished.scores) == 1
        assert finished.curves["step"].tolist() == [0]

    @pytest.mark.slow
    def test_without_a_head_are_not_scored_and_say_what_is_missing(self, world: World) -> None:
        save_file(weights_of(SIZE), "w.safetensors")
        result = run("--model", "mine:small", "--weights", "w.safetensors", "--runtimes", "numbers")
        assert result.exit_code == 0, result.output
        ((status, reason),) = rows("accuracy").values()
        assert status == "unsupported"
        assert "have neither of the head.weight (2, 5) and head.bias (2,) that task 'tiny' is scored with" in reason


class TestTheCommand:
    def test_puts_the_layer_on_every_runtime_and_catches_the_one_that_is_wrong(self, world: World) -> None:
        result = run("--model", "mine:Decay")
        assert result.exit_code == 1, result.output
        parity = rows("parity")
        assert parity["mine.decay@numbers"] == ("ok", "")
        assert parity["mine.decay@deaf"][0] == "wrong"
        assert "random state" in parity["mine.decay@deaf"][1]
        finished = load("out")
        assert finished.header["baselines"] == {"mine.decay": "mine.decay@numbers"}
        assert set(finished.trials["distribution"]) == {"mine:Decay"}
        assert finished.trials["distribution_version"].str.fullmatch("source [0-9a-f]{12}").all()
        assert set(finished.parity["yardstick"]) == {"mine.decay@numbers"}
        assert OWN_MODEL_VARIABLE not in os.environ
        assert str(os.getpid()) not in Path("imported").read_text(encoding="utf-8").split()

    def test_goes_with_all_others_that_are_not_left_out(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[list[str]] = []
        monkeypatch.setattr("harness.running.run_suite", lambda name, suite, *_, **__: asked.append(suite.models))
        for models in ("!plain-*", "!plain-*,numbers-*", ""):
            assert run("--model", "mine:Decay", "--models", models).exit_code == 0
        Path("suite.toml").write_text("models = ['!plain-*']\n" + SUITE, encoding="utf-8")
        assert CliRunner().invoke(main, ["run", "suite.toml", "--model", "mine:Decay"]).exit_code == 0
        everything = ["*", "!plain-*", "mine.decay"]
        assert asked == [everything, ["!plain-*", "numbers-*", "mine.decay"], ["mine.decay"], everything]

    @pytest.mark.slow
    def test_gives_a_layer_of_one_size_its_own_size_and_refuses_a_task_of_another_width(self, world: World) -> None:
        assert run("--model", "mine:small", "--runtimes", "numbers").exit_code == 0
        assert set(load("out").trials["hidden_size"]) == {5}
        result = run("--model", "mine:other", "--runtimes", "numbers", "--out", "other")
        assert result.exit_code == 2
        assert set(load("other").trials["status"]) <= {"unsupported", "skipped"}
        assert "'mine:other' has one size, I=7 H=5 L=1; asked for was I=3 H=5 L=1" in result.output

    @pytest.mark.slow
    def test_resumes_and_notices_other_weights_and_other_source(self, world: World) -> None:
        save_file(weights_of(SIZE, (2,)), "w.safetensors")
        assert run("--model", "mine:small", "--weights", "w.safetensors", "--runtimes", "numbers").exit_code == 0
        again = CliRunner().invoke(main, ["run", "--resume", "out", "--quiet"])
        assert again.exit_code == 0, again.output
        save_file({name: 2 * array for name, array in weights_of(SIZE, (2,)).items()}, "w.safetensors")
        changed = CliRunner().invoke(main, ["run", "--resume", "out", "--quiet"])
        assert changed.exit_code == 2
        assert "changed: plugins own-model.version" in changed.stderr
        save_file(weights_of(SIZE, (2,)), "w.safetensors")
        Path("mine.py").write_text(LAYERS + "\n# another thought\n", encoding="utf-8")
        assert CliRunner().invoke(main, ["run", "--resume", "out", "--quiet"]).exit_code == 2

    @pytest.mark.slow
    def test_checks_the_layer_with_the_rules_of_the_contract(self, world: World) -> None:
        result = CliRunner().invoke(main, ["check", "--model", "mine:small", "--checks", "parity,no_state_leak"])
        assert result.exit_code == 1, result.output
        lines = result.stdout.splitlines()
        assert [line.split()[:2] for line in lines] == [["wrong", "mine.small@deaf"], ["ok", "mine.small@numbers"]]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--model", "mine"], "'mine': write module:attribute, such as my_layer:build"),
            (["--model", "absent:build"], "--model absent:build: no module 'absent' in"),
            (["--model", "mine:nothing"], "--model mine:nothing: 'mine:nothing': there is no 'nothing' in 'mine'"),
            (["--weights", "w.safetensors"], "--weights: they are those of --model"),
            (["--model", "mine:small", "--weights", "absent"], "cannot be read: No such file or directory"),
            (["--model", "mine:small", "--weights", "mine.py"], "cannot be read as safetensors"),
        ],
    )
    def test_says_on_one_line_what_cannot_be_used(self, world: World, arguments: list[str], said: str) -> None:
        result = run(*arguments)
        assert result.exit_code == 2
        assert said in result.stderr
        assert result.stderr.count("\n") == 1
        assert not Path("out").exists()


class TestWrap:
    def test_takes_a_class_that_another_process_can_find(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(Path.cwd()))
        monkeypatch.delitem(sys.modules, "mine", raising=False)
        decay = importlib.import_module("mine").Decay
        model = package.wrap(decay, framework="numbers", state_names=["h"])
        assert (model.name, model.framework, model.architecture.name) == ("mine.decay", "numbers", "mine.decay")
        assert model.architecture.weight_shapes(SIZE) == {"w": (5, 3), "u": (5, 5)}
        sys.modules.pop("mine")

    def test_imports_nothing_when_it_is_given_a_name(self, world: World) -> None:
        model = package.wrap("nowhere.at_all:Layer", framework="numbers", name="layer", directions=2)
        assert (model.name, model.architecture.directions, model.architecture.state_names) == ("layer", 2, ("h", "c"))

    def test_refuses_what_no_other_process_can_find(self) -> None:
        with pytest.raises(HarnessError, match="cannot be found by another process"):
            package.wrap(lambda **size: None, framework="numbers")
        with pytest.raises(HarnessError, match="does not tell what its layer is made of; say framework="):
            package.wrap("mine:build")

    @pytest.mark.parametrize(
        ("target", "name"),
        [("mine:Decay", "mine.decay"), ("a.b.layers:Norm_LSTM", "layers.norm_lstm"), ("_m:_build", "m._build")],
    )
    def test_names_a_model_after_its_module_and_attribute(self, target: str, name: str) -> None:
        assert name_of(target) == name

    def test_knows_a_function_by_its_module_and_name(self) -> None:
        assert target_of(LayerSize) == "harness.contract:LayerSize"


needs_torch = pytest.mark.skipif(not importlib.util.find_spec("harness_torch"), reason="needs rnn-harness-torch")
EXAMPLE = next(
    (code for words, code, _ in fences(text_of("plugins.md")) if "class NormLSTM" in code and words[0] == "python"), ""
)


@pytest.mark.slow
@needs_torch
def test_the_layer_of_the_plugin_page_runs_on_torch_with_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_PLUGINS", "torch,tasks")
    Path("my_layer.py").write_text(EXAMPLE, encoding="utf-8")
    Path("suite.toml").write_text(SUITE.replace("tiny", "digits-rows").replace("seeds = 2", "seeds = 0"))
    result = run("--model", "my_layer:NormLSTM", "--hidden-size", "6", "--runtimes", "eager")
    assert result.exit_code == 0, result.output
    assert rows("parity") == {"my_layer.normlstm@eager": ("ok", "")}
    header = json.loads(Path("out/run.json").read_text(encoding="utf-8"))
    assert header["own_model"]["target"] == "my_layer:NormLSTM"
    assert header["suite"]["layer"]["hidden_size"] == 6
