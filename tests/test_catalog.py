"""Discovery: what plugins give is found, and a broken one is kept with its reason and harms no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from strangers import QUICK, World

from harness import HarnessError
from harness.cli import main

HOOK = (
    "import harness\nfrom strangers import TINY, PlainRuntime, plain_model\n@harness.hookimpl\ndef harness_{}s():\n    "
)

BROKEN = {
    "import error": ("import no_such_module_anywhere", "no_such_module_anywhere"),
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
    "a task of an unknown kind": (
        HOOK.format("task") + "return [harness.Task('t', 'regresion', 1, 1, 1, print)]",
        "task 't': its kind must be classification or regression",
    ),
    "a task whose kind is no text": (
        HOOK.format("task") + "return [harness.Task('t', ['regression'], 1, 1, 1, print)]",
        "task 't': its kind must be classification or regression",
    ),
    "hook takes an argument nobody gives": (
        "import harness\n@harness.hookimpl\ndef harness_models(speed): return []",
        "speed",
    ),
    "misspelt hook": ("import harness\n@harness.hookimpl\ndef harness_modells(): return []", "harness_modells"),
    "gives nothing": ("", "it gives no model, runtime or task"),
    "gives empty lists": (HOOK.format("model") + "return []", "it gives no model, runtime or task"),
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
