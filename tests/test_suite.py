"""Suite files: the built-in ones are sound, and a mistake is one line with its key, its line and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import HarnessError
from harness.catalog import discover
from harness.plan import make_plan
from harness.suite import (
    DEFAULT_SUITE,
    MAX_SUITE_BYTES,
    Latency,
    Server,
    Stream,
    Suite,
    override,
    parse_suite,
    read_suite,
)
from harness.suites import builtin_suites

# the text of a suite, and what the one line must say
MISTAKES = {
    "unknown key": ('\nmodel = ["a"]', ["line 2", "unknown key 'model'", "models", "trial_seconds"]),
    "unknown key in a table": ("[latency]\n\nrounds = 3", ["line 3", "'latency.rounds'", "slices", "calls", "twins"]),
    "unknown table": ("seeds = 1\n[latencies]\ncalls = 12", ["line 2", "'latencies'", "latency"]),
    "unknown key of an inline table": ("layer = { depth = 2 }", ["line 1", "'layer.depth'", "num_layers"]),
    "unknown dotted key": ("seeds = 1\nlayer.depth = 2", ["line 2", "'layer.depth'", "hidden_size"]),
    "unknown quoted key": ("seeds = 1\n'model' = 2", ["line 2", "'model'"]),
    "unknown key with brackets": ("seeds = 1\n'a[b]' = 2", ["a[b]"]),
    "unknown key of two lines": ('seeds = 1\n"a\\nb" = 2', ["unknown key"]),
    "unknown key that moves the cursor": ('seeds = 1\n"a\\u001b[2Jb" = 2', ["unknown key"]),
    "text for a list": ('models = "hand-lstm"', ["line 1", "'models'", "list"]),
    "number in a list of names": ("\n\nmodels = [1]", ["line 3", "'models'", "string"]),
    "name with a path": ('tasks = ["../x"]', ["line 1", "'tasks'", "../x", "pattern"]),
    "name of two lines": ('tasks = ["a\\nb"]', ["line 1", "'tasks'", r"'a\nb'"]),
    "name of dots": ('runtimes = [".."]', ["line 1", "'runtimes'", "pattern"]),
    "name that is an option": ('models = ["--help"]', ["line 1", "'models'", "pattern"]),
    "name of 65 letters": (f"models = ['{'a' * 65}']", ["line 1", "'models'", "pattern"]),
    "baseline of dots": ('baselines = ["..@.."]', ["line 1", "'baselines'", "pattern"]),
    "baseline without a runtime": ('seeds = 1\nbaselines = ["torch-lstm"]', ["line 2", "'baselines'", "@"]),
    "text for a number": ('threads = "2"', ["line 1", "'threads'", "integer"]),
    "truth for a number": ("threads = true", ["line 1", "'threads'", "integer"]),
    "fraction for a whole number": ("threads = 1.5", ["line 1", "'threads'", "integer"]),
    "too few threads": ("threads = 0", ["line 1", "'threads'", "greater than or equal to 1"]),
    "too many threads": ("threads = 100000000000000000000", ["line 1", "'threads'", "less than or equal to 1024"]),
    "number of 5000 digits": (f"threads = {'9' * 5000}", []),
    "negative seeds": ("seeds = -1", ["line 1", "'seeds'", "greater than or equal to 0"]),
    "unknown dtype": ("dtype = 'float16'", ["line 1", "'dtype'", "'float32' or 'float64'"]),
    "odd device": ("device = 'cuda; rm'", ["line 1", "'device'"]),
    "unknown scenario": (
        "[latency]\nscenarios = ['server']",
        ["line 2", "'latency.scenarios'", "'server'", "single-stream"],
    ),
    "swept fraction": ("[sweep]\nbatch = [1, 1.5]", ["line 2", "'sweep.batch'", "integer"]),
    "unknown key of the sweep": ("[sweep]\nseeds = [1]", ["line 2", "'sweep.seeds'", "hidden_size"]),
    "unknown load": ("loads = ['offline']", ["line 1", "'loads'", "'offline'", "'server' or 'stream'"]),
    "unknown key of a server": ("[server]\n\nrate = 3", ["line 3", "'server.rate'", "p99_seconds", "most_batch"]),
    "a bound of no time": ("[server]\np99_seconds = 0", ["line 2", "'server.p99_seconds'", "greater than 0"]),
    "an empty batch": ("[server]\nmost_batch = 0", ["line 2", "'server.most_batch'", "greater than or equal to 1"]),
    "chunks of nothing": (
        "[stream]\nchunk_steps = 0",
        ["line 2", "'stream.chunk_steps'", "greater than or equal to 1"],
    ),
    "misses in percent": ("[stream]\nmiss_share = 1", ["line 2", "'stream.miss_share'", "less than 1"]),
    "one slice": ("[latency]\nslices = 1", ["line 2", "'latency.slices'", "greater than or equal to 2"]),
    "one slice at most": (
        "[latency]\nmax_slices = 1",
        ["line 2", "'latency.max_slices'", "greater than or equal to 2"],
    ),
    "a key of old": ("[latency]\nprocesses = 5", ["line 2", "unknown key 'latency.processes'", "slices", "instances"]),
    "too many slices": ("[latency]\n\nslices = 1001", ["line 3", "'latency.slices'", "less than or equal to 1000"]),
    "too many slices at most": ("[latency]\nmax_slices = 1001", ["line 2", "'latency.max_slices'", "1000"]),
    "no instance": ("[latency]\ninstances = 0", ["line 2", "'latency.instances'", "greater than or equal to 1"]),
    "too many instances": ("[latency]\ninstances = 1001", ["line 2", "'latency.instances'", "1000"]),
    "too few calls": (
        "[latency]\n# calls = 8\ncalls = 9",
        ["line 3", "'latency.calls'", "greater than or equal to 10"],
    ),
    "too many calls": ("[latency]\ncalls = 1_000_001", ["line 2", "'latency.calls'", "1000000"]),
    "no precision": ("[latency]\nprecision = 0.0", ["line 2", "'latency.precision'", "greater than 0"]),
    "precision in percent": ("[latency]\nprecision = 1", ["line 2", "'latency.precision'", "less than 1"]),
    "precision that is no number": ("[latency]\nprecision = nan", ["line 2", "'latency.precision'"]),
    "no tolerance": ("[latency]\ntolerance = 0", ["line 2", "'latency.tolerance'", "greater than 0"]),
    "tolerance in percent": ("[latency]\ntolerance = 2.5", ["line 2", "'latency.tolerance'", "less than 1"]),
    "no budget": ("[latency]\nbudget_seconds = 0", ["line 2", "'latency.budget_seconds'", "greater than 0"]),
    "endless budget": ("[latency]\nbudget_seconds = inf", ["line 2", "'latency.budget_seconds'", "604800"]),
    "fewer twins than none": ("[latency]\ntwins = -1", ["line 2", "'latency.twins'", "greater than or equal to 0"]),
    "too many twins": ("[latency]\ntwins = 21", ["line 2", "'latency.twins'", "less than or equal to 20"]),
    "half a twin": ("[latency]\ntwins = 0.5", ["line 2", "'latency.twins'", "integer"]),
    "an interpreter's name with a space": (
        "\n[pythons]\n'my own' = 'python'",
        ["line 2", "'pythons.my own'", "pattern"],
    ),
    "an interpreter's name in capitals": ("[pythons]\nnew = 'a'\nNew = 'b'", ["line 3", "'pythons.New'", "pattern"]),
    "an interpreter without a name": ("seeds = 1\n[pythons]\n'' = 'python'", ["line 2", "'pythons.'", "pattern"]),
    "an interpreter's name of dots": ("[pythons]\n'..' = 'python'", ["line 2", "'pythons...'", "pattern"]),
    "an interpreter without a path": ("[pythons]\nold = ''", ["line 2", "'pythons.old'", "at least 1 character"]),
    "an interpreter's path with a zero": ('[pythons]\nold = "a\\u0000"', ["line 2", "'pythons.old'", "pattern"]),
    "a number for an interpreter": ("seeds = 1\n[pythons]\nold = 3", ["line 3", "'pythons.old'", "string"]),
    "a number for a dotted interpreter": ("seeds = 1\n\npythons.old = 3", ["line 3", "'pythons.old'", "string"]),
    "a number for an inline interpreter": ("seeds = 1\npythons = { old = 3 }", ["line 2", "'pythons.old'", "string"]),
    "a list of interpreters": ("seeds = 1\npythons = ['python']", ["line 2", "'pythons'", "dictionary"]),
    "no time": ("[latency]\nseconds = 0", ["line 2", "'latency.seconds'", "greater than 0"]),
    "endless time": ("[latency]\nseconds = inf", ["line 2", "'latency.seconds'", "3600"]),
    "endless trials": ("trial_seconds = inf", ["line 1", "'trial_seconds'"]),
    "no layers": ("[layer]\nnum_layers = 0", ["line 2", "'layer.num_layers'", "greater than or equal to 1"]),
    "a number for a table": ("seeds = 1\nlatency = 3", ["line 2", "'latency'"]),
    "a list of tables": ("[[latency]]\ncalls = 12", ["line 1", "'latency'"]),
    "not TOML": ("seeds = 1\nmodels = ]", ["not valid TOML", "line 2"]),
    "a key twice": ("seeds = 1\nseeds = 2", ["not valid TOML"]),
    "nested too deeply": ("models = " + "[" * 100_000, ["nested too deeply"]),
    "keys nested too deeply": ("a." * 100_000 + "b = 1", ["nested too deeply", "more than 100 dots"]),
    "tables nested too deeply": ("[" + '"#".' * 100_000 + "b]", ["nested too deeply", "more than 100 dots"]),
    "as deep as may be": ("a." * 100 + "b = 1", ["line 1", "unknown key 'a'"]),
    "values nested too deeply": ("x = " + "{a=" * 50_000, ["nested too deeply"]),
    "two mistakes": ("threads = 0\nseeds = -1", ["line 1", "'threads'", "(and 1 more)"]),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_is_one_line_with_its_key_its_line_and_what_is_allowed(kind: str) -> None:
    text, said = MISTAKES[kind]
    with pytest.raises(HarnessError) as raised:
        parse_suite(text, "suite 'mine.toml'")
    message = str(raised.value)
    assert message.startswith("suite 'mine.toml'")
    assert [part for part in said if part not in message] == []
    assert message.isprintable()


def test_an_empty_suite_is_every_default() -> None:
    suite = parse_suite("", "suite")
    assert suite == Suite()
    assert (suite.models, suite.seeds, suite.device, suite.pythons) == (["*"], 3, "cpu", {})
    latency = suite.latency
    assert (latency.slices, latency.max_slices, latency.instances, latency.twins) == (5, None, 4, 1)
    assert (latency.calls, latency.seconds, latency.budget_seconds) == (35, 0.25, 600.0)
    assert (latency.precision, latency.tolerance) == (0.01, 0.01)


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("slices", 2, 1000),
        ("max_slices", 2, 1000),
        ("instances", 1, 1000),
        ("calls", 10, 1_000_000),
        ("seconds", 1e-9, 3600),
        ("precision", 1e-9, 0.999),
        ("budget_seconds", 1e-9, 604_800),
        ("tolerance", 1e-9, 0.999),
        ("twins", 0, 20),
    ],
)
def test_a_key_of_latency_may_be_as_small_and_as_large_as_its_limits(key: str, least: float, most: float) -> None:
    for value in (least, most):
        suite = parse_suite(f"[latency]\n{key} = {value}", "suite")
        assert getattr(suite.latency, key) == value
        assert suite == Suite(latency=Latency.model_validate({key: value}))


def test_interpreters_stand_in_the_order_of_the_file_whatever_their_names() -> None:
    suite = parse_suite("[pythons]\nz-new = '/venvs/new/bin/python'\n'3.11' = 'python3.11'", "suite")
    assert list(suite.pythons.items()) == [("z-new", "/venvs/new/bin/python"), ("3.11", "python3.11")]
    assert list(override(suite, threads=2).pythons) == ["z-new", "3.11"]


def test_the_line_of_a_key_is_found_although_another_table_has_the_same_key() -> None:
    with pytest.raises(HarnessError, match=r"line 4: 'latency\.calls'"):
        parse_suite("# calls = 1\n[layer]\n[ latency ] # calls = 1\ncalls = 1", "suite")


@pytest.mark.parametrize("name", ["quick", "tutorial", "full", "deploy", "scenarios"])
def test_a_built_in_suite_is_read_and_comes_back_from_its_own_data(name: str) -> None:
    short, suite = read_suite(name)
    assert short == name
    assert Suite.model_validate(suite.model_dump()) == suite
    assert override(suite) == suite
    assert suite.description == builtin_suites()[name] != ""
    assert suite.baselines == []  # a name would be refused where its plugin is not installed


def test_the_default_suite_is_built_in() -> None:
    assert DEFAULT_SUITE in builtin_suites()


def test_a_suite_file_goes_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "my.first.toml"
    path.write_text("seeds = 7", encoding="utf-8")
    name, suite = read_suite(str(path))
    assert (name, suite.seeds) == ("my.first", 7)


def test_an_override_changes_its_key_alone_and_none_changes_nothing() -> None:
    suite = parse_suite("seeds = 2\n[latency]\ncalls = 20", "suite")
    changed = override(suite, models=["a", "b-*"], threads=2, device=None, seeds=None)
    assert changed == suite.model_copy(update={"models": ["a", "b-*"], "threads": 2})
    assert suite.threads == 1


def test_an_override_of_a_key_of_latency_leaves_the_others_as_they_were() -> None:
    suite = parse_suite("threads = 2\n[latency]\ncalls = 20\nslices = 3", "suite")
    changed = override(suite, slices=4, max_slices=8, precision=0.02, budget_seconds=None)
    assert changed.latency == suite.latency.model_copy(update={"slices": 4, "max_slices": 8, "precision": 0.02})
    assert (changed.threads, suite.latency.slices) == (2, 3)


def test_an_override_of_all_interpreters_puts_them_in_the_place_of_the_files() -> None:
    suite = parse_suite("pythons = { old = 'a' }", "suite")
    assert override(suite, pythons={"new": "b"}).pythons == {"new": "b"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"threads": 0}, "--threads: input should be greater than or equal to 1"),
        ({"seeds": -1}, "--seeds: input should be greater than or equal to 0"),
        ({"dtype": "float16"}, "--dtype: input should be 'float32' or 'float64'"),
        ({"models": ["../x"]}, "--models: "),
        ({"device": "a b"}, "--device: "),
        ({"baselines": ["x"]}, "--baselines: "),
        ({"slices": 1}, "--slices: input should be greater than or equal to 2"),
        ({"max_slices": 1001}, "--max-slices: input should be less than or equal to 1000"),
        ({"precision": 0.0}, "--precision: input should be greater than 0"),
    ],
)
def test_a_wrong_override_names_the_option_and_what_is_allowed(change: dict[str, object], said: str) -> None:
    with pytest.raises(HarnessError) as raised:
        override(Suite(), **change)
    assert str(raised.value).startswith(said)
    assert str(raised.value).isprintable()


def test_an_unknown_suite_names_the_near_one() -> None:
    with pytest.raises(HarnessError, match=r"^no suite is called 'quik'; did you mean 'quick'\?"):
        read_suite("quik")


def test_an_unknown_suite_like_no_other_lists_the_built_in_ones_in_a_sentence_of_its_own() -> None:
    with pytest.raises(HarnessError) as raised:
        read_suite("zzz")
    message = str(raised.value)
    assert "deploy, full, quick, scenarios, tutorial" in message
    assert "'zzz' Built in" not in message


def test_the_name_of_an_unknown_suite_is_shown_on_one_line() -> None:
    with pytest.raises(HarnessError) as raised:
        read_suite("a\nb")
    assert str(raised.value).isprintable()


def test_a_missing_suite_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"none\.toml' cannot be read: No such file"):
        read_suite(str(tmp_path / "none.toml"))


def test_a_folder_is_no_suite(tmp_path: Path) -> None:
    (tmp_path / "x.toml").mkdir()
    with pytest.raises(HarnessError, match=r"x\.toml' cannot be read: Is a directory"):
        read_suite(str(tmp_path / "x.toml"))


def test_a_suite_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.toml"
    path.write_bytes("description = 'für'".encode("latin-1"))
    with pytest.raises(HarnessError, match=r"latin\.toml' cannot be read: .*utf-8"):
        read_suite(str(path))


def test_a_suite_that_is_too_big_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.toml"
    path.write_text("#" * (MAX_SUITE_BYTES + 1), encoding="utf-8")
    with pytest.raises(HarnessError, match=f"has {MAX_SUITE_BYTES + 1} bytes; a suite has at most {MAX_SUITE_BYTES}"):
        read_suite(str(path))


def test_what_the_command_line_says_takes_the_place_of_a_list_that_is_swept_over() -> None:
    swept = override(Suite(), sweep={"hidden_size": [8, 16], "dtype": ["float64"], "batch": [1, 2]})
    assert swept.sweep.hidden_size == [8, 16]
    again = override(swept, hidden_size=32, sweep={"batch": [4]})
    assert (again.sweep.hidden_size, again.sweep.dtype, again.sweep.batch) == ([], ["float64"], [4])
    assert again.layer.hidden_size == 32


def test_what_is_swept_over_and_given_as_one_value_too_is_refused() -> None:
    with pytest.raises(HarnessError, match="--hidden-size: it is swept over too; leave one of them out"):
        override(Suite(), hidden_size=128, sweep={"hidden_size": [64]})


def test_a_sweep_over_something_else_lists_what_can_be_swept_over() -> None:
    with pytest.raises(
        HarnessError, match=r"--sweep seeds: nothing of that name .*: batch, time, hidden-size, num-layers"
    ):
        override(Suite(), sweep={"seeds": [1]})


def test_every_built_in_suite_has_a_plan_with_everything_installed() -> None:
    pytest.importorskip("harness_torch")
    catalog = discover()
    for name in builtin_suites():
        assert make_plan(read_suite(name)[1], catalog).trials


@pytest.mark.parametrize(("key", "points"), [("batch", [0]), ("dtype", ["float16"]), ("sizes", [1]), ("time", ["x"])])
def test_a_wrong_sweep_is_one_line_that_names_it(key: str, points: list[int | str]) -> None:
    with pytest.raises(HarnessError, match=f"^--sweep {key}: ") as caught:
        override(Suite(), sweep={key: points})
    assert "\n" not in str(caught.value)


def test_a_probe_lasts_as_long_as_an_overload_of_5_percent_needs_to_show() -> None:
    assert [Server().probe_seconds, Stream().probe_seconds] == pytest.approx([2.0, 2.0])
    assert Server(p99_seconds=1.0).probe_seconds == 20.0
    assert Server(p99_seconds=1.0, most_seconds=8.0).probe_seconds == 20.0  # or it could not be judged
    assert Server(seconds=30.0, most_seconds=8.0).probe_seconds == 8.0
    assert Server(seconds=3.0).confirmation_seconds == 15.0
    assert Stream(step_seconds=0.05).chunks == 20
    assert Stream(seconds=7.01).chunks == 71
