"""Discovery: what plugins give is found, and a broken one is kept with its reason and harms no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner
from strangers import QUICK, TINY, World, plain_model

from harness import CONTRACT_VERSION, LSTM, HarnessError
from harness.catalog import Catalog, Plugin, discover, make_entry
from harness.cli import main
from harness.contract import printable
from harness.formats import BUILT_IN

HOOK = (
    "import harness\nfrom strangers import TINY, PlainRuntime, plain_model\n@harness.hookimpl\ndef harness_{}s():\n    "
)

SOUND = HOOK.format("model") + "return [plain_model()]"
ROOT = Path(__file__).parent.parent
PLUGIN = Plugin("own", "own-package", "1.0")
BROKEN = {
    "import error": ("import no_such_module_anywhere", "no_such_module_anywhere"),
    "another version of the contract": (
        "harness_contract = 2\n" + HOOK.format("model") + "raise KeyError('never asked')",
        "it is written for version 2 of the plugin contract, and this rnn-harness has version 1; upgrade rnn-harness, "
        "or install a release of 'stranger-aaa-broken' for version 1",
    ),
    "an older version of the contract": (
        "harness_contract = 0",
        "it is written for version 0 of the plugin contract, and this rnn-harness has version 1; install a release of "
        "'stranger-aaa-broken' for version 1",
    ),
    "a version of the contract in words": ("harness_contract = 'one'", "its harness_contract must be a whole number"),
    "a version of the contract that is a truth": ("harness_contract = True", "must be a whole number, such as 1"),
    "a word that this contract does not have": (
        "from harness import Dataset",
        "is it written for another plugin contract than version 1?",
    ),
    "an import error of no name": ("raise ModuleNotFoundError('gone')", "ModuleNotFoundError: gone"),
    "an import error of an odd name": ("raise ModuleNotFoundError('gone', name=3)", "ModuleNotFoundError: gone"),
    "an import error of a relative name": ("raise ModuleNotFoundError('gone', name='.x')", "ModuleNotFoundError: gone"),
    "a module missing in its own package": (
        "import stranger_aaa_broken.layers",
        "ModuleNotFoundError: No module named 'stranger_aaa_broken.layers'",
    ),
    "a module missing in a package that is there": (
        "import click.no_such_module",
        "ModuleNotFoundError: No module named 'click.no_such_module'",
    ),
    "syntax error": ("def (:", "SyntaxError"),
    "leaves while it is imported": ("raise SystemExit(3)", "SystemExit: 3"),
    "raises without a word": ("raise ValueError", "ValueError: no message"),
    "an exception of no usual kind": ("class Stop(BaseException): pass\nraise Stop('enough')", "Stop: enough"),
    "an exception that cannot be shown": (
        "class Mute(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise Mute",
        "Mute",
    ),
    "a message of several lines": ("raise ValueError('one\\n\\n  two')", "ValueError: one two"),
    "hook raises": (HOOK.format("model") + "raise KeyError('lost')", "KeyError: 'lost'"),
    "hook gives a number": (HOOK.format("model") + "return 3", "TypeError"),
    "hook gives texts": (HOOK.format("model") + "return ['lstm']", "harness_models gave a str"),
    "hook gives a task for a model": (HOOK.format("model") + "return [TINY]", "harness_models gave a Task"),
    "hook gives a runtime that cannot open": (HOOK.format("runtime") + "return [object()]", "lacks name, frameworks"),
    "a model of no architecture": (
        HOOK.format("model") + "return [harness.Model('m', None, 'plain', dict)]",
        "architecture",
    ),
    "a runtime that accepts nothing one can ask": (
        HOOK.format("runtime") + "return [PlainRuntime('r', frameworks=None)]",
        "frameworks",
    ),
    "a task of no recipe": (
        HOOK.format("task") + "return [harness.Task('t', 'classification', 1, 1, 1, print, recipe=None)]",
        "recipe",
    ),
    "a task that may be ragged": (
        HOOK.format("task") + "return [harness.Task('t', 'classification', 1, 1, 1, print, ragged='perhaps')]",
        "task 't': its ragged must be True or False",
    ),
    "a task of an unknown kind": (
        HOOK.format("task") + "return [harness.Task('t', 'regresion', 1, 1, 1, print)]",
        "task 't': its kind must be classification or regression",
    ),
    "a task whose kind is no text": (
        HOOK.format("task") + "return [harness.Task('t', ['regression'], 1, 1, 1, print)]",
        "task 't': its kind must be classification or regression",
    ),
    "hook gives a function for a report format": (
        HOOK.format("report_format") + "return [print]",
        "harness_report_formats gave a builtin_function_or_method; it must give ReportFormat records",
    ),
    "a report format that cannot write": (
        HOOK.format("report_format") + "return [harness.ReportFormat('f', '', 'file.txt')]",
        "report format 'f': its write must be callable",
    ),
    "a report format whose description is no text": (
        HOOK.format("report_format") + "return [harness.ReportFormat('f', None, print)]",
        "report format 'f': its description must be a text",
    ),
    "a report format whose name is a path": (
        HOOK.format("report_format") + "return [harness.ReportFormat('../x', '', print)]",
        "report format name '../x' must be made of a-z",
    ),
    "report formats without end": (
        HOOK.format("report_format") + "while True:\n        yield harness.ReportFormat('f', '', print)",
        "it gives more than 1000 models, runtimes, tasks, report formats and accelerators",
    ),
    "an accelerator that is none": (
        HOOK.format("accelerator") + "return [print]",
        "harness_accelerators gave a builtin_function_or_method; it must give Accelerator records",
    ),
    "an accelerator that cannot be opened": (
        HOOK.format("accelerator") + "return [harness.Accelerator('toys', '', 'toy')]",
        "accelerator 'toys': its open must be callable",
    ),
    "an accelerator whose description is no text": (
        HOOK.format("accelerator") + "return [harness.Accelerator('toys', 3, print)]",
        "accelerator 'toys': its description must be a text",
    ),
    "an accelerator whose name is a path": (
        HOOK.format("accelerator") + "return [harness.Accelerator('../x', '', print)]",
        "accelerator name '../x' must be made of a-z",
    ),
    "hook takes an argument nobody gives": (
        "import harness\n@harness.hookimpl\ndef harness_models(speed): return []",
        "speed",
    ),
    "misspelt hook": ("import harness\n@harness.hookimpl\ndef harness_modells(): return []", "harness_modells"),
    "gives nothing": ("", "it gives no model, runtime, task, report format or accelerator"),
    "gives empty lists": (
        HOOK.format("model") + "return []",
        "it gives no model, runtime, task, report format or accelerator",
    ),
    "a generator that never ends": (
        HOOK.format("model") + "while True:\n        yield plain_model()",
        "more than 1000 models",
    ),
    "a description that is no text": (HOOK.format("model") + "return [plain_model(description=3)]", "description"),
    "a door that cannot be called": (HOOK.format("model") + "return [plain_model(to_parameters=3)]", "to_parameters"),
    "lengths that are neither true nor false": (
        HOOK.format("model") + "return [plain_model(takes_lengths=1)]",
        "model 'plain-lstm': its takes_lengths must be True or False",
    ),
    "a framework with a line of its own": (
        HOOK.format("model") + "return [harness.Model('m', harness.LSTM, 'a\\nb', dict)]",
        "model 'm': framework 'a\\nb' must be made of a-z",
    ),
    "a layer that cannot be built": (
        HOOK.format("model") + "return [harness.Model('m', harness.LSTM, 'plain', None)]",
        "model 'm': its build must be callable",
    ),
    "a runtime whose trainer cannot be opened": (
        HOOK.format("runtime") + "class Odd(PlainRuntime): open_trainer = 3\n    return [Odd()]",
        "runtime 'plain': its open_trainer must be callable",
    ),
    "a runtime for a framework with a space": (
        HOOK.format("runtime") + "return [PlainRuntime('r', frozenset({'my own'}))]",
        "runtime 'r': framework 'my own' must be made of a-z",
    ),
    "a task that cannot be loaded": (
        HOOK.format("task") + "return [harness.Task('t', 'regression', 1, 1, 1, 'data.csv')]",
        "task 't': its load must be callable",
    ),
    "name of dots": (HOOK.format("model") + "return [plain_model('..')]", "'..'"),
    "name that is an option": (HOOK.format("model") + "return [plain_model('-x')]", "'-x'"),
    "name of a line and its end": (HOOK.format("model") + "return [plain_model('a\\n')]", "'a\\n'"),
    "name in other letters": (HOOK.format("model") + "return [plain_model('ä')]", "'ä'"),
    "name of 65 letters": (HOOK.format("model") + "return [plain_model('a' * 65)]", "at most 64 characters"),
    "name of ten megabytes": (HOOK.format("model") + "return [plain_model('a' * 10_000_000)]", "'aaaaaaa"),
    "name with a path": (HOOK.format("model") + "return [plain_model('../x')]", "'../x'"),
    "name with a formula": (HOOK.format("model") + "return [plain_model('=cmd()')]", "'=cmd()'"),
    "name with a new line": (HOOK.format("model") + "return [plain_model('a\\nb')]", "'a\\nb'"),
    "name with an at": (HOOK.format("model") + "return [plain_model('a@b')]", "'a@b'"),
    "name with a pattern": (HOOK.format("model") + "return [plain_model('a*')]", "'a*'"),
    "name in capitals": (HOOK.format("model") + "return [plain_model('LSTM')]", "'LSTM'"),
    "no name": (HOOK.format("model") + "return [plain_model('')]", "''"),
    "a name that is no text": (HOOK.format("model") + "return [plain_model(3)]", "3"),
}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path / "plugins", monkeypatch)


def test_what_a_plugin_gives_is_found_with_its_owner(world: World) -> None:
    world.add_plain(plain_lstm="")
    catalog = world.catalog()
    assert [catalog.names(kind) for kind in ("model", "runtime", "task")] == [["plain-lstm"], ["plain"], ["tiny"]]
    entry = catalog.entry("model", "plain-lstm")
    assert (entry.plugin.name, entry.plugin.distribution, entry.plugin.version) == ("plain", "stranger-plain", "1.0")
    assert catalog.model("plain-lstm") is entry.value
    assert catalog.runtime("plain").frameworks == {"plain"}
    assert catalog.task("tiny").time == 5


def test_a_plugin_that_gives_nothing_but_a_report_format_is_sound(world: World) -> None:
    world.add("writer", HOOK.format("report_format") + "return [harness.ReportFormat('f', 'one file', print)]")
    catalog = world.catalog()
    assert [plugin.failure for plugin in catalog.plugins] == [None]
    assert [(entry.kind, entry.name) for entry in catalog.entries] == [("report format", "f")]
    assert catalog.report_format("f") is catalog.entry("report format", "f").value
    assert catalog.report_format("f").description == "one file"


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_kept_with_its_reason_and_harms_no_other(world: World, kind: str) -> None:
    source, reason = BROKEN[kind]
    world.add("aaa-broken", source)  # it is loaded before the sound one
    world.add_plain(plain_lstm="")
    catalog = world.catalog()
    broken, sound = catalog.plugins
    assert broken.name == "aaa-broken"
    assert broken.failure
    assert reason in broken.failure
    assert "\n" not in broken.failure
    assert sound.failure is None
    assert [entry.name for entry in catalog.entries] == ["plain-lstm", "plain", "tiny"]


@pytest.mark.parametrize("statement", ["", "harness_contract = 1\n"])
def test_a_plugin_that_does_not_say_which_contract_it_is_written_for_means_the_first(
    world: World, statement: str
) -> None:
    world.add("sound", statement + SOUND)
    (plugin,) = world.catalog().plugins
    assert plugin.failure is None


@pytest.mark.parametrize("path", sorted((ROOT / "plugins").glob("*/src/*/__init__.py")), ids=lambda p: p.parent.name)
def test_the_plugins_of_this_repository_say_it(path: Path) -> None:
    assert f"\nharness_contract = {CONTRACT_VERSION}\n" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("required", "step"),
    [
        (["rnn-harness>=0.1", "no-such-jit>=0.61"], "pip install no-such-jit"),
        (["No.Such.JIT ; extra == 'fast'", "no-such-other"], "pip install No.Such.JIT"),
        (["click", "compilers-of-nowhere[all]>=2"], "pip install compilers-of-nowhere"),  # its module has another name
        (["optional-of-nowhere; extra == 'fast'"], "its package asks for nothing of that name"),
        ([], "its package asks for nothing of that name"),
    ],
)
def test_a_plugin_that_needs_what_is_not_installed_says_what_to_install(
    world: World, required: list[str], step: str
) -> None:
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in required)
    metadata = f"Metadata-Version: 2.1\nName: rnn-harness-sick\nVersion: 1.0\n{lines}"
    world.add("sick", "import no_such_jit.cuda", metadata=metadata)
    world.add_plain(plain_lstm="")
    result = CliRunner().invoke(main, ["list"])
    assert f"FAILED: 'rnn-harness-sick' needs 'no_such_jit', which is not installed: {step}\n" in result.stdout
    assert "plain-lstm" in result.stdout


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", None, 2**31])
def test_sizes_are_whole_numbers_above_nothing_that_arrays_can_have(number: Any) -> None:
    for name in ("input_size", "time", "outputs"):
        with pytest.raises(HarnessError, match=f"task 'tiny': its {name} must be a whole number from 1 to 2147483647"):
            make_entry("task", replace(TINY, **{name: number}), PLUGIN)
    for name in ("hidden_size", "num_layers", "batch_size", "epochs"):
        recipe = replace(TINY.recipe, **{name: number})
        with pytest.raises(HarnessError, match=f"task 'tiny': its recipe's {name} must be a whole number from 1"):
            make_entry("task", replace(TINY, recipe=recipe), PLUGIN)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), True, "1"])
def test_a_recipes_numbers_are_finite(number: Any) -> None:
    for name in ("learning_rate", "clip_norm", "forget_bias"):
        recipe = replace(TINY.recipe, **{name: number})
        with pytest.raises(HarnessError, match=f"task 'tiny': its recipe's {name} must be finite"):
            make_entry("task", replace(TINY, recipe=recipe), PLUGIN)


@pytest.mark.parametrize(("name", "number"), [("learning_rate", 0), ("learning_rate", None), ("clip_norm", -1.0)])
def test_a_recipes_step_goes_somewhere(name: str, number: Any) -> None:
    task = replace(TINY, recipe=replace(TINY.recipe, **{name: number}))
    with pytest.raises(HarnessError, match=f"task 'tiny': its recipe's {name} must be finite and above 0"):
        make_entry("task", task, PLUGIN)


def test_a_recipe_may_leave_out_what_it_need_not_have_and_count_in_whole_numbers() -> None:
    recipe = replace(TINY.recipe, learning_rate=1, clip_norm=None, forget_bias=-1)
    task = replace(TINY, recipe=recipe, input_size=1, time=2**31 - 1)
    assert make_entry("task", task, PLUGIN).value is task


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../x"}, "architecture name '../x' must be made of"),
        ({"directions": 3}, "its architecture's directions must be 1 or 2"),
        ({"directions": True}, "its architecture's directions must be 1 or 2"),
        ({"weight_shapes": {}}, "its architecture's weight_shapes must be callable"),
        ({"reference": None}, "its architecture's reference must be callable"),
        ({"state_names": ()}, "its architecture's state_names must be a tuple of names"),
        ({"state_names": "hc"}, "its architecture's state_names must be a tuple of names"),
        ({"state_names": ("h", "<b>")}, "state name '<b>' must be made of"),
    ],
)
def test_an_architecture_is_looked_at_too(change: dict[str, Any], said: str) -> None:
    model = replace(plain_model("m"), architecture=replace(LSTM, **change))
    with pytest.raises(HarnessError) as raised:
        make_entry("model", model, PLUGIN)
    assert str(raised.value).startswith("model 'm': ")
    assert said in str(raised.value)


def test_an_optimizer_is_one_that_there_is() -> None:
    recipe = replace(TINY.recipe, optimizer=cast(Any, "adagrad"))
    with pytest.raises(HarnessError, match="task 'tiny': its recipe's optimizer must be adam or sgd"):
        make_entry("task", replace(TINY, recipe=recipe), PLUGIN)


class TestChoosing:
    def test_the_chosen_plugins_alone_are_imported(self, world: World) -> None:
        world.add_plain("plain")
        world.add("sick", "raise KeyboardInterrupt")
        assert [plugin.name for plugin in discover(["plain"]).plugins] == ["plain"]
        assert discover([]) == Catalog((), ())

    def test_the_environment_chooses_and_may_name_what_is_not_here(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.add_plain("plain")
        world.add("sick", "raise KeyboardInterrupt")
        monkeypatch.setenv("HARNESS_PLUGINS", "elsewhere, plain")
        assert [plugin.name for plugin in discover().plugins] == ["plain"]

    def test_an_empty_choice_of_the_environment_is_none(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        world.add_plain("plain")
        monkeypatch.setenv("HARNESS_PLUGINS", " ,")
        assert [plugin.name for plugin in discover().plugins] == ["plain"]

    @pytest.mark.parametrize(("wanted", "hint"), [("plan", "did you mean 'plain'?"), ("zzz", "there are: plain, sick")])
    def test_an_unknown_plugin_is_told_of_before_anything_is_imported(
        self, world: World, wanted: str, hint: str
    ) -> None:
        world.add_plain("plain")
        world.add("sick", "raise KeyboardInterrupt")
        with pytest.raises(HarnessError) as raised:
            discover(["sick", wanted])
        assert str(raised.value) == f"no plugin is called '{wanted}'; {hint}"


def point(world: World, name: str) -> None:
    """An entry point of that name, in a package whose metadata is as odd."""
    world.add("sound", SOUND)
    info = world.folder / "stranger_sound-1.0.dist-info"
    (info / "entry_points.txt").write_text(f"[harness]\n{name} = stranger_sound\n", encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {name}\n", encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["a|b", "<script>", "@cmd()", "../../x", "\x1b[2Jred", "\u202eabc", "a b", "x" * 10**7]
)
def test_odd_names_of_plugins_and_packages_are_shown_on_one_short_line(world: World, name: str) -> None:
    point(world, name)
    (plugin,) = world.catalog().plugins
    assert plugin.failure is None
    assert plugin.name == plugin.version == printable(name)
    for text in (plugin.name, plugin.distribution, plugin.version):
        assert text.isprintable()
        assert len(text) <= 200
    assert discover([plugin.name]).plugins == (plugin,)


def test_a_plugin_whose_name_has_a_comma_cannot_be_chosen_and_is_not_loaded(world: World) -> None:
    point(world, "one,two")
    (plugin,) = world.catalog().plugins
    assert plugin.failure == "its entry point's name has a comma; plugins are chosen by name, with commas between"


@pytest.mark.parametrize("metadata", [None, b"", b"\xff\xfe\xff", b"Name:\nVersion:\n", b"Name: " + b"a" * 10**7])
def test_metadata_that_cannot_be_read_breaks_nothing(world: World, metadata: bytes | None) -> None:
    world.add("sound", SOUND)
    file = world.folder / "stranger_sound-1.0.dist-info" / "METADATA"
    file.unlink()
    if metadata is not None:
        file.write_bytes(metadata)
    (plugin,) = world.catalog().plugins
    assert plugin.failure is None
    assert plugin.distribution[:1] in ("s", "a")
    assert len(plugin.distribution) <= 200


@pytest.mark.parametrize("text", [b"[harness]\nno equals sign", b"\xff\xfe", b"[harness]\nx = not a module!"])
def test_entry_points_that_cannot_be_read_hide_no_other(world: World, text: bytes) -> None:
    world.add_plain("plain")
    info = world.folder / "odd-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(text)
    assert [plugin.name for plugin in world.catalog().plugins if not plugin.failure] == ["plain"]


def test_a_broken_plugin_gives_nothing_even_where_part_of_it_is_sound(world: World) -> None:
    world.add("half", HOOK.format("model") + "return [plain_model('sound'), plain_model('../x')]")
    assert world.catalog().entries == ()


def test_an_interruption_while_plugins_load_is_not_taken_for_a_broken_plugin(world: World) -> None:
    world.add("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        world.catalog()


def test_a_plugin_whose_metadata_has_no_name_is_still_named(world: World) -> None:
    world.add("nameless", HOOK.format("model") + "return [plain_model()]", metadata="Metadata-Version: 2.1\n")
    (plugin,) = world.catalog().plugins
    assert isinstance(plugin.distribution, str)
    assert isinstance(plugin.version, str)


def test_two_plugins_with_one_name_are_both_named_when_it_is_looked_up(world: World) -> None:
    world.add_plain("one", shared="", first="")
    world.add("two", HOOK.format("model") + "return [plain_model('shared')]")
    catalog = world.catalog()
    assert catalog.model("first").name == "first"
    with pytest.raises(HarnessError) as raised:
        catalog.model("shared")
    assert str(raised.value) == ("model 'shared' is provided by both 'stranger-one' and 'stranger-two'; uninstall one")
    assert catalog.names("model").count("shared") == 1


def test_one_plugin_that_gives_a_name_twice_is_refused_too(world: World) -> None:
    world.add("twice", HOOK.format("model") + "return [plain_model('same'), plain_model('same')]")
    with pytest.raises(HarnessError, match="'same'"):
        world.catalog().model("same")


def test_a_model_and_a_runtime_may_share_a_name(world: World) -> None:
    world.add_plain(plain="")
    catalog = world.catalog()
    assert catalog.model("plain").framework == "plain"
    assert catalog.runtime("plain").name == "plain"


def test_near_names_are_suggested(world: World) -> None:
    world.add_plain(plain_lstm="", plain_lstn="", other="")
    with pytest.raises(HarnessError, match=r"no model is called 'plain-lst'; did you mean .*'plain-lstm'") as raised:
        world.catalog().model("plain-lst")
    assert "other" not in str(raised.value)


def test_an_unknown_name_lists_what_there_is_and_what_failed_to_load(world: World) -> None:
    world.add_plain(plain_lstm="", another="")
    world.add("sick", "raise ValueError('flu')")
    with pytest.raises(HarnessError) as raised:
        world.catalog().model("zzz")
    assert str(raised.value) == (
        "no model is called 'zzz'; there are: plain-lstm, another; failed to load: 'sick' (ValueError: flu)"
    )


def test_with_nothing_installed_an_unknown_name_says_that_there_is_none(world: World) -> None:
    with pytest.raises(HarnessError, match="no task is called 'zzz'; there are: none"):
        world.catalog().task("zzz")


def test_list_shows_what_there_is(world: World) -> None:
    world.add_plain(plain_lstm="")
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    for text in ("stranger-plain 1.0  ok", "plain-lstm", "NumPy, with gradients by hand", "tiny", "twenty rows"):
        assert text in result.stdout


def test_list_shows_failures_and_clashes_and_ends_with_1(world: World) -> None:
    world.add_plain("one", shared="")
    world.add("two", HOOK.format("model") + "return [plain_model('shared')]")
    world.add("sick", "raise ValueError('flu')")
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 1
    assert "FAILED: ValueError: flu" in result.stdout
    assert "CLASH with stranger-two" in result.stdout
    assert "CLASH with stranger-one" in result.stdout


def test_list_shows_the_cores_report_formats_and_those_of_plugins(world: World) -> None:
    source = "return [harness.ReportFormat(name, f'{name} of a stranger', print) for name in ('scroll', 'csv')]"
    world.add("writer", HOOK.format("report_format") + source)
    shown = CliRunner().invoke(main, ["list"]).stdout
    names = shown.partition("\nreport formats\n")[2].partition("\naccelerators\n")[0].splitlines()
    ours = list(BUILT_IN)
    assert [line.split()[0] for line in names] == [*ours, "scroll", "csv"]
    assert names[0].endswith("CLASH with stranger-writer")
    assert names[-2] == f"  {'scroll':<26} scroll of a stranger"
    assert names[-1].endswith("csv of a stranger  CLASH with rnn-harness")


def test_list_says_how_to_begin_when_nothing_is_installed(world: World) -> None:
    result = CliRunner().invoke(main, ["list"])
    assert result.exit_code == 0
    assert "none; install" in result.stdout


def test_a_run_that_does_not_ask_for_the_broken_plugin_succeeds(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    world.add("sick", "raise ValueError('flu')")
    suite = tmp_path / "suite.toml"
    suite.write_text("seeds = 0\n[latency]\nscenarios = []", encoding="utf-8")
    result = CliRunner().invoke(main, ["run", str(suite), "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.exception) == (0, None)


def test_a_run_that_asks_for_its_model_says_what_is_broken(world: World, tmp_path: Path) -> None:
    world.add_plain(plain_lstm="")
    world.add("sick", "raise ValueError('flu')")
    suite = tmp_path / "suite.toml"
    suite.write_text(f"models = ['sick-lstm']\n{QUICK}", encoding="utf-8")
    result = CliRunner().invoke(main, ["run", str(suite), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "no model is called 'sick-lstm'" in result.stderr
    assert "'sick' (ValueError: flu)" in result.stderr
    assert not (tmp_path / "out").exists()
