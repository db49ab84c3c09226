"""The survey: what plugins give is known to the engine, and none of their code has run in its process."""

from __future__ import annotations

import copy
import json
import os
import signal
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strangers import World

import harness.engine.survey
from harness import LSTM, HarnessError, Inputs, LayerSize, SessionOptions, Task, Trainable
from harness.catalog import discover
from harness.contract import needs_accelerator
from harness.description import describe, from_description
from harness.engine.process import WorkerProcess
from harness.engine.survey import survey
from harness.plan import make_plan
from harness.suite import Suite

MODELS = "import os, harness\nfrom strangers import plain_model\n@harness.hookimpl\ndef harness_models():\n    "
OWN = "harness.Architecture('own', 1, {}, print)"
TALK = (
    "import os, struct\nbody = b'{}'\nfor number in range(3, 30):\n    try:\n"
    "        os.write(number, struct.pack('!I', len(body)) + body)\n    except OSError: pass"
)
ANOTHER = {"name": "another", "distribution": "rnn-another", "version": "1.0", "failure": None}
OWN_ARCHITECTURE = {
    "name": "own",
    "directions": 1,
    "state_names": ["h"],
    "is_built_in": False,
    "computes_nothing": False,
    "code": ["stranger:shapes:1", "stranger:reference:2"],
}
# what a plugin's module does, and why the others have to go on without it
HOSTILE = {
    "segfault": ("import ctypes\nctypes.string_at(0)", "crashed: the worker was ended by SIGSEGV while it was loaded"),
    "exit": ("import os\nos._exit(3)", "crashed: the worker ended by itself with exit code 3 while it was loaded"),
    "leaves": ("import sys\nsys.exit('bye')", "SystemExit: bye"),
    "exit-in-hook": (MODELS + "os._exit(4)", "exit code 4 while it was loaded"),
    "exit-in-shapes": (
        MODELS + f"return [harness.Model('m', {OWN.format('lambda size: os._exit(5)')}, 'plain', dict)]",
        "exit code 5 while it was loaded",
    ),
    "interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "mute": ("class Mute(Exception):\n    def __str__(self): raise SystemExit\nraise Mute", "Mute: (its text cannot"),
    "flood": (MODELS + "\n    while True:\n        yield plain_model()", "it gives more than 1000 models"),
    "deaf": ("import os\nos.closerange(3, 100)", "while it was loaded"),
    "talks-nonsense": (TALK.format("[" * 100), "the worker's reply cannot be read"),
    "talks-of-nothing": (TALK.format('{"result": {}}'), "what it says of itself cannot be read: KeyError"),
    "talks-of-others": (
        TALK.format(json.dumps({"result": {"plugin": ANOTHER, "entries": []}})),
        "what it says of itself is about another",
    ),
    "long-name": (MODELS + "return [plain_model('x' * 10_000_000)]", "'xxx"),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


def failures(**arguments: Any) -> dict[str, str | None]:
    return {plugin.name: plugin.failure for plugin in survey(**arguments).plugins}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_plugin_is_kept_with_its_reason_and_harms_no_other(world: World, kind: str) -> None:
    source, reason = HOSTILE[kind]
    world.add(kind, source)
    world.add_plain("aaa", first="")
    world.add_plain("zzz", last="")
    catalog = survey()
    found = {plugin.name: plugin.failure for plugin in catalog.plugins}
    assert list(found) == ["aaa", kind, "zzz"]
    said = found[kind]
    assert said
    assert reason in said
    assert said.isprintable()
    assert len(said) <= 1000
    assert found["aaa"] is found["zzz"] is None
    assert catalog.names("model") == ["first", "last"]


def test_of_many_hostile_plugins_each_has_its_own_reason(world: World) -> None:
    world.add_plain("plain")
    chosen = ("segfault", "exit", "leaves", "exit-in-shapes", "flood")
    for kind in chosen:
        world.add(kind, HOSTILE[kind][0])
    found = failures()
    for kind in chosen:
        assert HOSTILE[kind][1] in str(found[kind])
    assert found["plain"] is None


def test_a_plugin_that_does_not_come_back_is_ended_wherever_it_is(world: World) -> None:
    world.add_plain("aaa")
    world.add("in-its-module", "while True: pass")
    world.add("in-its-hook", MODELS + "\n    while True: pass\n    yield")
    world.add("sleeps", "import time\nwhile True:\n    time.sleep(9)")
    late = dict.fromkeys(["in-its-hook", "in-its-module", "sleeps"], "timed-out: loading it took longer than 3 s")
    assert failures(seconds=3.0) == {"aaa": None, **late}


def test_a_plugin_that_prints_without_end_is_ended(world: World) -> None:
    world.add_plain("aaa")
    world.add("prints", "while True: print('x' * 10_000)")
    found = failures(seconds=10.0)
    assert found["aaa"] is None
    assert "printed more than" in str(found["prints"])


def test_what_a_plugin_changes_in_its_process_does_not_reach_this_one(world: World) -> None:
    world.add(
        "meddler",
        "import builtins, os, signal, warnings\n"
        "os.chdir('/')\nos.umask(0o777)\nos.environ['MEDDLED'] = '1'\nwarnings.simplefilter('ignore')\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "builtins.len = lambda _: 3\n" + MODELS + "return [plain_model()]",
    )
    umask = os.umask(0o022)
    os.umask(umask)
    before = Path.cwd(), umask, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    survey()
    umask = os.umask(umask)
    assert (Path.cwd(), umask, signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert "MEDDLED" not in os.environ
    assert len("four") == 4


def test_a_survey_imports_no_plugin(world: World) -> None:
    world.add_plain("plain")
    assert survey().names("model") == ["plain-lstm"]
    assert "stranger_plain" not in sys.modules


def test_sound_plugins_need_one_worker_and_broken_ones_one_more_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    class Counted(WorkerProcess):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            started.append(options)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(harness.engine.survey, "WorkerProcess", Counted)
    world.add_plain("one", first="")
    world.add_plain("two", second="")
    world.add("sick", "raise ValueError('flu')")
    assert failures() == {"one": None, "sick": "ValueError: flu", "two": None}
    assert len(started) == 2


def test_an_interruption_ends_the_survey(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add_plain("plain")

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(WorkerProcess, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        survey()


def test_plugins_that_change_while_they_are_loaded_are_told_of(world: World) -> None:
    world.add("aaa", "raise ValueError")
    world.add(
        "multiplies",
        "import os, pathlib\nhere = pathlib.Path(__file__).parent\ninfo = here / 'more-1.0.dist-info'\ninfo.mkdir()\n"
        "(info / 'entry_points.txt').write_text('[harness]\\nmore = more')\nos._exit(1)",
    )
    with pytest.raises(HarnessError, match="plugins changed while they were loaded; try again"):
        survey()


def test_a_worker_that_cannot_be_started_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(world.folder / "no-python"))
    with pytest.raises(HarnessError, match="a worker cannot be started: No such file or directory"):
        survey()


class TestChoosing:
    def test_the_chosen_plugins_alone_are_imported(self, world: World, tmp_path: Path) -> None:
        world.add_plain("plain")
        world.add("other", f"open({str(tmp_path / 'imported')!r}, 'w').close()")
        assert failures(only=["plain"]) == {"plain": None}
        assert not (tmp_path / "imported").exists()

    def test_the_environment_chooses_where_nobody_else_does(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.add_plain("plain")
        world.add_plain("other", second="")
        monkeypatch.setenv("HARNESS_PLUGINS", " plain, ")
        assert failures() == {"plain": None}
        assert failures(only=["other"]) == {"other": None}

    @pytest.mark.parametrize("by", ["argument", "environment"])
    def test_an_unknown_plugin_is_told_of_before_anything_is_imported(
        self, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
    ) -> None:
        world.add("plain", f"open({str(tmp_path / 'imported')!r}, 'w').close()")
        world.add_plain("other")
        monkeypatch.setenv("HARNESS_PLUGINS", "plain,plane")
        with pytest.raises(HarnessError, match=r"no plugin is called 'plane'; did you mean 'plain'\?"):
            survey(["plain", "plane"] if by == "argument" else None)
        assert not (tmp_path / "imported").exists()


class TestStandIns:
    def test_a_plan_made_of_them_is_the_plan_made_of_plugins(self, world: World) -> None:
        world.add_plain("one", first="", second="refuses")
        world.add("two", MODELS + "return [plain_model('third', yardstick=True, takes_lengths=True)]")
        world.add(
            "three",
            MODELS + f"return [harness.Model('nothing', {OWN.format('lambda size: {}')}, 'plain', dict),"
            "harness.Model('odd', harness.Architecture('odd', 2, dict, print, ('s',)), 'plain', dict)]",
        )
        plan = make_plan(Suite(), survey())
        assert plan == make_plan(Suite(), discover())
        assert plan.floors == ("own",)
        assert plan.yardsticks["lstm"].model == "third"

    def test_models_that_mean_different_things_by_a_name_differ(self, world: World) -> None:
        world.add_plain("one")
        lstm = "harness.Architecture('lstm', 1, dict, print)"
        world.add("two", MODELS + f"return [harness.Model('m', {lstm}, 'plain', dict)]")
        catalog = survey()
        assert catalog.model("plain-lstm").architecture != catalog.model("m").architecture
        with pytest.raises(HarnessError, match="mean different things by architecture 'lstm'"):
            make_plan(Suite(), catalog)

    def test_a_task_keeps_every_field_but_its_data(self, world: World) -> None:
        source = "import harness\n@harness.hookimpl\ndef harness_tasks():\n"
        source += "    recipe = harness.Recipe(7, 2, 'sgd', 0.5, 9)\n"
        source += "    return [harness.Task('t', 'regression', 2, 3, 4, print, recipe, 'some', ragged=True)]"
        world.add("own", source)
        described, given = survey().task("t"), discover().task("t")
        for field in fields(Task):
            if field.name != "load":
                assert getattr(described, field.name) == getattr(given, field.name)
        assert described.ragged

    def test_a_report_format_keeps_every_field_but_its_code(self, world: World) -> None:
        source = "import harness\n@harness.hookimpl\ndef harness_report_formats():\n"
        world.add("own", source + "    return [harness.ReportFormat('f', 'one\\nfile', print)]")
        described = survey().report_format("f")
        assert (described.name, described.description) == ("f", "one file")
        with pytest.raises(HarnessError, match="plugins' code runs in workers only"):
            described.write(None, world.folder)

    def test_an_accelerator_keeps_its_name_and_can_be_opened_in_workers_only(self, world: World) -> None:
        source = "import harness\n@harness.hookimpl\ndef harness_accelerators():\n"
        world.add("own", source + "    return [harness.Accelerator('toys', 'made\\nup', print)]")
        described = survey().accelerator("toys")
        assert (described.name, described.description) == ("toys", "made up")
        with pytest.raises(HarnessError, match="plugins' code runs in workers only"):
            described.open("toy")

    def test_a_runtime_that_needs_an_accelerator_says_so(self, world: World) -> None:
        world.add_plain("plain")
        source = "import dataclasses, harness, strangers\n@dataclasses.dataclass(frozen=True)\n"
        source += "class Needs(strangers.PlainRuntime):\n    name: str = 'needs'\n    needs_accelerator: bool = True\n"
        world.add("own", source + "@harness.hookimpl\ndef harness_runtimes(): return [Needs()]")
        told = {name: needs_accelerator(survey().runtime(name)) for name in ("plain", "needs")}
        assert told == {"plain": False, "needs": True}

    def test_they_say_what_plugins_say_and_can_do_nothing(self, world: World) -> None:
        world.add_plain("plain")
        catalog = survey()
        model, runtime, task = catalog.model("plain-lstm"), catalog.runtime("plain"), catalog.task("tiny")
        assert isinstance(runtime, Trainable)
        assert (model.architecture.name, model.architecture.state_names) == ("lstm", LSTM.state_names)
        assert (task.time, task.recipe.epochs, task.description) == (5, 2, "twenty rows")
        assert catalog.entry("task", "tiny").plugin.distribution == "stranger-plain"
        world.add("own", MODELS + f"return [harness.Model('m', {OWN.format('lambda size: {1: 1}')}, 'plain', dict)]")
        size, own = LayerSize(1, 2), survey().model("m").architecture
        for call in (
            lambda: model.build(input_size=1, hidden_size=2, num_layers=1),
            lambda: model.to_parameters({}),
            lambda: own.weight_shapes(size),
            lambda: own.reference({}, Inputs(np.zeros((1, 1, 1))), size),
            lambda: runtime.open(model, {}, SessionOptions(size)),
            lambda: runtime.initial_weights(model, size, 0),
            lambda: task.load(None),
        ):
            with pytest.raises(HarnessError, match="plugins' code runs in workers only"):
                call()

    def test_a_runtime_that_does_not_train_is_no_trainable(self, world: World) -> None:
        world.add(
            "still",
            "import harness\nclass Still:\n    name, frameworks, description = 'still', {'plain'}, ''\n"
            "    def open(self, *_): pass\n@harness.hookimpl\ndef harness_runtimes(): return [Still()]",
        )
        assert not isinstance(survey().runtime("still"), Trainable)

    def test_long_and_odd_descriptions_become_one_short_line(self, world: World) -> None:
        world.add("odd", MODELS + "return [plain_model(description='\\x1b[2J\\n\\u202e' + 'x' * 10_000_000)]")
        started = time.process_time()
        description = survey().model("plain-lstm").description
        assert description.startswith("\\x1b[2J \\u202exxx")
        assert len(description) == 200
        assert time.process_time() - started < 1


@pytest.fixture
def description(world: World) -> dict[str, Any]:
    world.add_plain("plain")
    (plugin,), entries = discover().plugins, discover().entries
    return describe(plugin, entries)


def test_a_description_survives_json_and_describes_itself(description: dict[str, Any]) -> None:
    catalog = from_description(json.loads(json.dumps(description)))
    assert describe(catalog.plugins[0], catalog.entries) == description


def changed(description: dict[str, Any], *path: Any, to: Any) -> dict[str, Any]:
    whole = copy.deepcopy(description)
    place: Any = whole
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return whole


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (["entries", 0, "name"], "../x"),
        (["entries", 0, "architecture"], 7),
        (["entries", 0, "architecture"], None),
        (["entries", 0, "plugin"], 7),
        (["entries", 0, "kind"], "suite"),
        (["entries", 0, "framework"], "=cmd()"),
        (["entries", 0, "takes_lengths"], 1),
        (["entries", 0, "surprise"], 1),
        (["entries", 1, "frameworks"], [["plain"]]),
        (["entries", 1, "frameworks"], 3),
        (["entries", 2, "task", "time"], 0),
        (["entries", 2, "task"], []),
        (["entries", 2, "recipe", "learning_rate"], "fast"),
        (["entries", 2, "recipe", "momentum"], 0.9),
        (["entries", 0, "architecture"], OWN_ARCHITECTURE | {"directions": 3}),
        (["entries", 0, "architecture"], OWN_ARCHITECTURE | {"state_names": []}),
        (["entries", 0, "architecture"], OWN_ARCHITECTURE | {"code": None}),
        (["entries", 0, "architecture"], OWN_ARCHITECTURE | {"name": "not-the-cores", "is_built_in": True}),
        (["plugin"], {}),
        (["plugin"], None),
        (["entries"], {"a": 1}),
    ],
)
def test_a_description_that_is_none_is_refused_in_one_line(
    description: dict[str, Any], path: list[Any], to: Any
) -> None:
    with pytest.raises(HarnessError) as raised:
        from_description(changed(description, *path, to=to))
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    "facts", [{"name": "../x"}, {"name": None}, {"description": "", "write": "os.system"}, {"kind": "report_format"}]
)
def test_a_report_format_that_is_described_as_none_is_refused_in_one_line(
    description: dict[str, Any], facts: dict[str, Any]
) -> None:
    entry = {"kind": "report format", "name": "f", "description": "one file"}
    sound = changed(description, "entries", to=[entry])
    assert from_description(sound).names("report format") == ["f"]
    with pytest.raises(HarnessError) as raised:
        from_description(changed(description, "entries", to=[entry | facts]))
    assert str(raised.value).isprintable()


def test_an_architecture_of_its_own_is_the_same_where_its_code_is_the_same(description: dict[str, Any]) -> None:
    def told(architecture: dict[str, Any]) -> Any:
        return from_description(changed(description, "entries", 0, "architecture", to=architecture)).entries[0].value

    own = told(OWN_ARCHITECTURE).architecture
    assert own == told(dict(OWN_ARCHITECTURE)).architecture
    assert own != told(OWN_ARCHITECTURE | {"code": ["stranger:shapes:1", "elsewhere:reference:2"]}).architecture
    assert own != told(OWN_ARCHITECTURE | {"directions": 2}).architecture


def test_an_architecture_of_the_core_is_the_cores_own(world: World) -> None:
    world.add_plain("plain")
    assert survey().model("plain-lstm").architecture is LSTM


def test_a_plugin_that_fails_for_what_another_did_is_loaded_all_the_same(world: World) -> None:
    world.add("aaa-meddler", "import pathlib\npathlib.Path = None\n" + MODELS + "return [plain_model('first')]")
    world.add("victim", "import pathlib\npathlib.Path('x')\n" + MODELS + "return [plain_model('second')]")
    assert failures() == {"aaa-meddler": None, "victim": None}


LATER = """
import os, sys, threading, time
def leave():
    while "stranger_slow" not in sys.modules:
        time.sleep(0.01)
    os._exit(9)
threading.Thread(target=leave, daemon=True).start()
"""


def test_a_plugin_that_ends_its_process_later_costs_no_other_its_place(world: World) -> None:
    world.add("aaa-later", LATER + MODELS + "return [plain_model('first')]")
    for name in ("slow", "slower"):
        world.add(name, "import time\ntime.sleep(0.5)\n" + MODELS + f"return [plain_model({name!r})]")
    assert failures() == {"aaa-later": None, "slow": None, "slower": None}


@pytest.mark.parametrize("nonsense", [None, [], {}, "text", 3, {"plugin": [], "entries": []}])
def test_what_is_no_description_at_all_is_refused(nonsense: Any) -> None:
    with pytest.raises(HarnessError, match="what it says of itself cannot be read"):
        from_description(nonsense)
