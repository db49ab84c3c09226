"""The pages: complete, true to the code, and every example in them runs."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import importlib.util
import inspect
import json
import re
import shlex
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
from click.testing import CliRunner
from workflows import read_yaml

import harness
from harness import attempts, capacity, cli, columns, formats, hookspecs, samples, schema, store, suite, tables
from harness.catalog import Catalog, Entry, Plugin
from harness.contract import SESSION_CLAIMS
from harness.engine.run import Preflight
from harness.journal import read_journal
from harness.versions import require

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "results/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "plugins").glob("*/README.md")),
    *sorted((ROOT / "plugins" / "examples").glob("*/README.md")),
    ROOT / "benchmarks" / "README.md",
]
EXAMPLES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FORBIDDEN = re.compile(r"(?<![\w.])(/tmp|/work|/home|/root|/Users|/opt|/mnt)/|[A-Z]:\\|\blocalhost\b|\.\./shared")


def title(page: Path) -> str:
    """A page's name in a test's id."""
    return str(page.relative_to(ROOT))


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def fences(text: str) -> Iterator[tuple[list[str], str, int]]:
    """Every fenced block: the words after the fence, its text, and its first line's number."""
    for found in re.finditer(r"^```(\S[^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield found[1].split(), found[2], text.count("\n", 0, found.start(2)) + 1


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", without_fences(text), re.MULTILINE | re.DOTALL)
    assert found, f"no section is called '{heading}'"
    return found[1]


def first_cells(text: str, heading: str) -> list[str]:
    """The code names in the first column of a section's tables."""
    return [
        name
        for row in re.findall(r"^\|([^|]*)\|", section(text, heading), re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", row)
    ]


def is_record(value: object) -> bool:
    return isinstance(value, type) and (dataclasses.is_dataclass(value) or getattr(value, "_is_protocol", False))


def members(record: type) -> set[str]:
    """The fields and public methods of a dataclass or protocol."""
    fields = {field.name for field in dataclasses.fields(record)} if dataclasses.is_dataclass(record) else set()
    return fields | {name for name in vars(record) if not name.startswith("_")}


RECORDS = [name for name in harness.__all__ if is_record(getattr(harness, name)) and name != "Run"]  # see its tables
HOOKS = [name for name in vars(hookspecs) if name.startswith("harness_")]


class TestThePluginPage:
    @pytest.mark.parametrize("name", RECORDS)
    def test_names_every_field_of_every_record_and_no_other(self, name: str) -> None:
        assert sorted(first_cells(text_of("plugins.md"), name)) == sorted(members(getattr(harness, name)))

    def test_names_every_hook_and_no_other(self) -> None:
        assert first_cells(text_of("plugins.md"), "Hooks") == HOOKS

    def test_has_an_example_of_every_hook(self) -> None:
        examples = "".join(code for words, code, _ in fences(text_of("plugins.md")) if words[0] == "python")
        assert [hook for hook in HOOKS if f"def {hook}()" not in examples] == []

    @pytest.mark.parametrize("name", SESSION_CLAIMS)
    def test_names_everything_that_a_session_may_say_of_itself_and_so_does_the_contract(self, name: str) -> None:
        assert name in first_cells(text_of("plugins.md"), "What a runtime may add")
        assert f"- `{name}`: " in (harness.Session.__doc__ or "")

    def test_names_every_error(self) -> None:
        errors = {
            f"harness.{name}"
            for name in harness.__all__
            if inspect.isclass(value := getattr(harness, name)) and issubclass(value, Exception)
        }
        assert set(first_cells(text_of("plugins.md"), "Errors")) == errors


SUITE_KEYS = {
    **suite.Suite.model_fields,
    **{f"layer.{name}": field for name, field in suite.Layer.model_fields.items()},
    **{f"latency.{name}": field for name, field in suite.Latency.model_fields.items()},
    **{f"sweep.{name}": field for name, field in suite.Sweep.model_fields.items()},
    **{f"stream.{name}": field for name, field in suite.Stream.model_fields.items()},
    **{f"server.{name}": field for name, field in suite.Server.model_fields.items()},
}
NUMBERS = {name: field.default for name, field in SUITE_KEYS.items() if type(field.default) in (int, float)}


class Idle:
    """A runtime that is never asked to do anything."""

    name = "idle"
    frameworks = frozenset({"none"})
    description = "does nothing"


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `harness run` makes for one variant and task, none of whose trials was run."""
    plugin = Plugin("own", "own-package", "1.0")
    model = harness.Model("some-lstm", harness.LSTM, "none", lambda **size: None)
    task = harness.Task("some-task", "classification", 2, 3, 4, lambda data_dir: pytest.fail("no data is needed"))
    given = {"model": model, "runtime": Idle(), "task": task}
    entries = tuple(Entry(kind, value.name, value, plugin) for kind, value in given.items())  # type: ignore[attr-defined]
    monkeypatch.setattr("harness.running.survey", lambda *arguments: Catalog((plugin,), entries))
    monkeypatch.setattr("harness.running.preflight", lambda *arguments: Preflight({}, {}))
    monkeypatch.setattr("harness.running.execute", lambda *arguments: None)
    result = CliRunner().invoke(cli.main, ["run", "--tasks", "some-task", "--quiet", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2, result.output  # nothing ran
    return tmp_path / "run"


class TestTheTablesPage:
    @pytest.mark.parametrize(
        ("heading", "columns"),
        [
            ("trials", schema.TRIAL_COLUMNS),
            ("parity", schema.PARITY_COLUMNS),
            ("costs", schema.COST_COLUMNS),
            ("gradients", schema.GRADIENT_COLUMNS),
            ("audits", schema.AUDIT_COLUMNS),
            ("scores", schema.SCORE_COLUMNS),
            ("curves", schema.CURVE_COLUMNS),
            ("samples", samples.SAMPLE_COLUMNS),
            ("instances", schema.INSTANCE_COLUMNS),
            ("processes", schema.PROCESS_COLUMNS),
            ("matrices", schema.MATRIX_COLUMNS),
            ("machine", schema.MACHINE_COLUMNS),
            ("latency", tables.LATENCY_COLUMNS),
            ("calibration", tables.CALIBRATION_COLUMNS),
            ("loads", schema.LOAD_COLUMNS),
            ("capacity", capacity.CAPACITY_COLUMNS),
        ],
    )
    def test_names_every_column_in_order_and_no_other(self, heading: str, columns: list[str]) -> None:
        assert first_cells(text_of("tables.md"), heading) == columns

    def test_names_every_column_of_the_summary_and_no_other(self, run_folder: Path) -> None:
        columns = [str(name) for name in pd.read_csv(run_folder / "tables" / "summary.csv").columns]
        prefixes = "|".join(scenario.replace("-", "_") for scenario in tables.SCENARIOS)
        general = [re.sub(rf"^({prefixes})_", "<scenario>_", name) for name in columns]
        assert sorted(first_cells(text_of("tables.md"), "summary")) == sorted(set(general))

    @pytest.mark.parametrize("heading", schema.TABLES)
    def test_gives_the_type_of_every_column(self, heading: str) -> None:
        rows = re.findall(r"^\| `([^`]+)` \| (\w+)", section(text_of("tables.md"), heading), re.MULTILINE)
        assert rows
        for name, kind in rows:
            assert columns.column_type(heading, name.replace("<scenario>", "offline")) == kind, name

    def test_names_every_format_of_the_core_and_what_the_help_names(self) -> None:
        assert first_cells(text_of("tables.md"), "Formats")[: len(formats.BUILT_IN)] == list(formats.BUILT_IN)
        help_text = " ".join(CliRunner().invoke(cli.main, ["report", "--help"]).output.split()).replace("- ", "-")
        assert f"formats and nothing else: {', '.join(formats.BUILT_IN)}, or what a plugin gives" in help_text

    def test_names_every_file_of_a_run(self, run_folder: Path) -> None:
        named = " ".join(re.findall(r"^\|([^|]*)\|", text_of("tables.md").partition("\n## ")[0], re.MULTILINE))
        for path in run_folder.iterdir():
            assert f"`{path.name}{'/' if path.is_dir() else ''}" in named
        for table in (run_folder / "tables").iterdir():
            assert f"\n## {table.stem}\n" in text_of("tables.md")

    def test_names_every_key_of_run_json_and_no_other(self, run_folder: Path) -> None:
        header: dict[str, Any] = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
        assert first_cells(text_of("tables.md"), "run.json") == list(header)
        assert first_cells(text_of("tables.md"), "Environment") == list(header["environment"])
        assert set(header["trials"][0]) | {"status", "reason", "log"} == set(schema.TRIAL_COLUMNS)

    def test_shows_a_record_of_the_journal_that_is_one(self, tmp_path: Path) -> None:
        (line,) = [text for words, text, _ in fences(text_of("tables.md")) if words == ["json"]]
        (tmp_path / "journal.jsonl").write_text(line, encoding="utf-8")
        ((number, _, record),) = read_journal(tmp_path / "journal.jsonl").records
        assert (number, record["trial"]) == (17, "0007-parity")

    def test_names_every_key_of_a_suite_and_no_other(self) -> None:
        assert sorted(first_cells(text_of("tables.md"), "Suite")) == sorted(SUITE_KEYS)

    @pytest.mark.parametrize("name", NUMBERS)
    def test_gives_the_default_of_every_number(self, name: str) -> None:
        default = NUMBERS[name]
        found = re.search(rf"^\| `{name}` \|[^|]*\| (\S+) \|", text_of("tables.md"), re.MULTILINE)
        assert found
        assert float(found[1]) == default

    def test_names_every_member_of_a_loaded_run_and_no_other(self) -> None:
        head = text_of("tables.md").partition("From Python")[2].partition("\n## ")[0]
        assert set(re.findall(r"^\| `(\w+)`", head, re.MULTILINE)) == members(store.Run)

    def test_names_every_key_and_every_outcome_of_an_attempt_and_no_other(self, tmp_path: Path) -> None:
        began = datetime(2026, 1, 1, tzinfo=UTC)
        attempts.write_attempt(attempts.Attempt(tmp_path, began, ("a==1",), attempts.MEASURED))
        facts = json.loads((tmp_path / attempts.ATTEMPT_FILE).read_text(encoding="utf-8"))
        text = section(text_of("tables.md"), "An attempt")
        assert first_cells(text_of("tables.md"), "An attempt") == list(facts)
        assert re.findall(r"^\| (\w[\w ]*) \| ", text.partition("| outcome |")[2], re.MULTILINE) == list(
            attempts.OUTCOMES
        )

    def test_gives_every_status_with_its_meaning(self) -> None:
        rows = re.findall(r"^\| `([^`]+)` \| (.+?) \|$", section(text_of("tables.md"), "Statuses"), re.MULTILINE)
        assert dict(rows) == schema.STATUSES

    def test_names_every_exit_code_and_no_other(self) -> None:
        codes = re.findall(r"^  (\d+(?:, \d+)*)  ", cli.EXIT_CODES, re.MULTILINE)
        assert re.findall(r"^\| (\d+(?:, \d+)*) \|", section(text_of("tables.md"), "Exit codes"), re.MULTILINE) == codes


def imports(path: Path) -> set[str]:
    """The modules of ours that a module imports at run time, at its top or inside a function."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            for name in (f"{node.module}.{alias.name}" for alias in node.names):
                whole = (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()
                yield (name if whole else str(node.module)).removeprefix("harness").removeprefix(".")
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    return set(walk(ast.parse(path.read_text(encoding="utf-8")))) - {""}


class TestTheMap:
    ROWS = re.findall(r"^\| `([^`]+\.py)` \|[^|]+\|([^|]*)\|$", section(text_of("architecture.md"), "The map"), re.M)

    def test_names_every_module_and_no_other(self) -> None:
        files = [path.relative_to(ROOT / "harness").as_posix() for path in (ROOT / "harness").rglob("*.py")]
        assert sorted(name for name, _ in self.ROWS) == sorted(files)

    @pytest.mark.parametrize(("name", "cell"), ROWS, ids=[name for name, _ in ROWS])
    def test_names_every_import_of_a_module_and_no_other(self, name: str, cell: str) -> None:
        assert set(re.findall(r"`([^`]+)`", cell)) == imports(ROOT / "harness" / name)


class TestExamples:
    @pytest.mark.parametrize("page", EXAMPLES, ids=title)
    def test_run(self, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The Python blocks of a page share one namespace; words after `python` name modules a block needs."""
        monkeypatch.chdir(ROOT)
        namespace: dict[str, Any] = {"__name__": "__main__"}
        text = page.read_text(encoding="utf-8")
        for (language, *needs), code, line in fences(text):
            if language == "python" and all(importlib.util.find_spec(name) for name in needs):
                source = "\n" * (line - 1) + code  # so that a traceback names the page's own line
                exec(compile(source, str(page), "exec"), namespace)

    @pytest.mark.parametrize("page", PAGES, ids=title)
    def test_name_only_commands_and_options_that_exist(self, page: Path) -> None:
        text = page.read_text(encoding="utf-8")
        for words, block, _ in fences(text):
            for script in scripts(words[0], block):
                for arguments in invocations(script):
                    parse(arguments)
        for name in re.findall(r"`harness ([a-z]\S*?)[ `]", without_fences(text)):
            assert name in cli.main.commands

    def test_catch_an_option_that_does_not_exist(self) -> None:
        with pytest.raises(click.UsageError, match="--modles"):
            parse(["run", "--modles", "a"])
        assert list(invocations("$ cd x && .venv/bin/harness run --quiet  # ends soon\n")) == [["run", "--quiet"]]


def scripts(language: str, block: str) -> list[str]:
    """The shell lines of a block: all of it, or what the steps of a workflow run."""
    if language == "yaml":
        return [
            step["run"] for job in read_yaml(block).get("jobs", {}).values() for step in job["steps"] if "run" in step
        ]
    return [block] if language in ("console", "bash", "sh") else []


WORKFLOWS = {f"docs/ci.md:{line}": text for words, text, line in fences(text_of("ci.md")) if words == ["yaml"]} | {
    title(path): path.read_text(encoding="utf-8") for path in (ROOT / ".github").rglob("*.yml")
}


class TestContinuousIntegration:
    @pytest.mark.parametrize("name", WORKFLOWS)
    def test_a_workflow_has_jobs_of_steps_that_either_run_something_or_use_an_action_of_one_version(
        self, name: str
    ) -> None:
        found = read_yaml(WORKFLOWS[name])
        assert set(found) <= {"name", "on", "permissions", "concurrency", "jobs"}
        assert {"name", "on", "permissions", "jobs"} <= set(found)
        for job in found["jobs"].values():
            assert {"runs-on", "timeout-minutes", "steps"} <= set(job)
            for step in job["steps"]:
                assert len({"run", "uses"} & set(step)) == 1, step
                assert set(step) <= {"name", "if", "env", "with", "run", "uses"}
                assert re.fullmatch(r"actions/[\w/-]+@v\d+", step.get("uses", "actions/x@v1"))

    def test_what_a_reader_pastes_measures_then_gates_and_shows_it_on_the_page_of_the_job(self) -> None:
        pasted = [text for name, text in WORKFLOWS.items() if name.startswith("docs/")]
        assert len(pasted) == 2
        for text in pasted:
            commands = [arguments for script in scripts("yaml", text) for arguments in invocations(script)]
            assert [arguments[0] for arguments in commands] == ["run", "gate"]
            assert commands[1][commands[1].index("--summary") + 1] == "$GITHUB_STEP_SUMMARY"
        assert [both.count("--python") for both in pasted] == [2, 0]

    def test_a_row_that_is_not_ok_ends_no_workflow_before_the_gate(self) -> None:
        for text in (text for name, text in WORKFLOWS.items() if name.startswith("docs/")):
            after = text[text.index("harness run") :]
            conditions = re.findall(r"^\s+if: (.*)$", after, re.MULTILINE)
            assert conditions
            assert all(condition.startswith("${{ !cancelled()") for condition in conditions)

    def test_a_command_that_does_not_exist_is_found_in_a_workflow_too(self) -> None:
        step = "      - run: |\n          harness rum a.toml \\\n            --out b\n"
        (script,) = scripts("yaml", f"jobs:\n  a:\n    steps:\n{step}")
        with pytest.raises(click.UsageError, match="rum"):
            parse(next(invocations(script)))

    @pytest.mark.parametrize(
        "text", ["a:\n\tb: c", "a: 1\na: 2", "a:\n  b: c\n d: e", "- a\nb: c", "a: b: c", 'a: "b', "a: [b", "a"]
    )
    def test_what_is_no_yaml_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"line \d"):
            read_yaml(text)

    def test_this_projects_own_workflow_runs_every_environment_of_tox_and_can_be_called(self) -> None:
        found = read_yaml(WORKFLOWS[".github/workflows/tests.yml"])
        ini = configparser.ConfigParser()
        ini.read(ROOT / "tox.ini", encoding="utf-8")
        assert found["jobs"]["tox"]["strategy"]["matrix"]["env"] == ini["tox"]["env_list"].split(", ")
        assert set(found["on"]) == {"push", "pull_request", "workflow_call"}
        installed = next(script for script in scripts("yaml", WORKFLOWS[".github/workflows/tests.yml"]))
        assert installed == "python -m pip install -c constraints.txt tox"
        assert f".venv/bin/{installed}".replace("install", "install --quiet") in (ROOT / ".ci/run").read_text()

    def test_the_suite_on_the_page_is_one(self) -> None:
        (text,) = [code for words, code, _ in fences(text_of("ci.md")) if words == ["toml"]]
        assert suite.parse_suite(text, "ci.md").latency.max_slices == 20

    def test_what_each_way_can_see_is_what_was_measured(self) -> None:
        measured = [
            [re.sub(r" \(.*\)", "", cell) for cell in row.split(" | ")[1:]]
            for name in ("one run, two interpreters, 5 to 10 slices", "two runs of 5 processes")
            for row in re.findall(rf"^\| ({name} \| .*) \|$", text_of("methodology.md"), re.MULTILINE)
        ]
        head = text_of("ci.md").partition("\n## ")[0]
        names = ("identical code: interval excludes 1", "2 % slower: found", "5 % slower: found", "half of an interval")
        told = [re.findall(rf"^\| {name} \| (.+) \| (.+) \|$", head, re.MULTILINE) for name in names]
        assert [list(cells) for (cells,) in told] == [list(pair) for pair in zip(*measured, strict=True)]


SECTIONS = {
    "tox.ini": (ROOT / "tox.ini").read_text(encoding="utf-8"),
    "docs/matrix.md": next(text for words, text, _ in fences(text_of("matrix.md")) if words == ["ini"]),
}


class TestTheMatrix:
    @pytest.mark.parametrize("name", SECTIONS)
    def test_every_column_has_an_environment_and_a_requirement_and_its_command_is_one(self, name: str) -> None:
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_string(SECTIONS[name])
        (header,) = [section for section in ini.sections() if section.startswith("testenv:bench-")]
        lines = dict(line.split(": ", 1) for line in ini["versions"]["of_this_column"].strip().splitlines())
        assert list(lines) == re.findall(r"\w+", header.removeprefix("testenv:bench-"))
        command = re.sub(r"\{posargs:(.+)\}", r"\1", ini[header]["commands"])
        for line in lines.values():
            (arguments,) = invocations(command.replace("{[versions]of_this_column}", line))
            parse(arguments)
            given = cli.bench.make_context("bench", arguments[1:]).params
            assert [require(text).name for text in given["requirements"]] == [re.split("=", line.split()[1])[0]]
            assert given["constraints"] == (Path("constraints.txt"),)

    def test_the_label_of_this_repository_runs_what_the_page_says_of_it(self) -> None:
        ini = configparser.ConfigParser(interpolation=None)
        ini.read_string(SECTIONS["tox.ini"])
        (header,) = [section for section in ini.sections() if section.startswith("testenv:bench-")]
        labels = dict(line.split(": ")[::-1] for line in ini[header]["labels"].strip().splitlines())
        named = re.search(r"`tox run -m bench` takes `(.+)`\.", text_of("matrix.md"))
        assert named
        assert named[1].split("`, `") == [f"bench-{factor}" for factor in labels["bench"].split(",")]
        assert "bench" not in ini["tox"]["env_list"]


def invocations(block: str) -> Iterator[list[str]]:
    """The arguments of every `harness` command in a block of shell lines."""
    joined = block.replace("\\\n", " ")
    for line in joined.splitlines():
        for command in re.split(r"&&|;|\|", line.strip().removeprefix("$ ")):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "harness":
                yield words[1:]


def parse(arguments: list[str]) -> None:
    """Parse a command's arguments and run nothing.

    Raises:
        click.UsageError: there is no such command or option.
    """
    with suppress(click.exceptions.Exit):  # --help and --version
        context = cli.main.make_context("harness", list(arguments))
        name, command, rest = cli.main.resolve_command(context, arguments)
        assert command
        try:
            command.make_context(name, rest, parent=context)
        except click.BadParameter as error:
            if error.param is None or not isinstance(error.param.type, click.Path):
                raise  # a reader's folder is not here, and need not be


class TestPages:
    @pytest.mark.parametrize("page", PAGES, ids=title)
    def test_link_only_to_what_is_there(self, page: Path) -> None:
        for target in re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text(encoding="utf-8"))):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name) if name else page
            assert path.exists(), f"{target} leads nowhere"
            if anchor:
                assert anchor in anchors(path.read_text(encoding="utf-8")), f"{target} names no heading"

    @pytest.mark.parametrize("page", PAGES, ids=title)
    def test_name_no_path_of_one_machine(self, page: Path) -> None:
        found = FORBIDDEN.search(page.read_text(encoding="utf-8"))
        assert not found, f"'{found[0]}' is a path of one machine"


def anchors(text: str) -> set[str]:
    """The anchors that a page's headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", without_fences(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_no_file_holds_a_merge_that_was_left_undone() -> None:
    tracked = [*PAGES, *ROOT.glob("*.toml"), *ROOT.glob("*.ini"), *ROOT.glob("*/*.py"), *ROOT.glob("harness/**/*.toml")]
    assert ROOT / "CHANGELOG.md" in tracked
    for path in tracked:
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not line.startswith(("<" * 7, ">" * 7)), path


MATRIX = ROOT / "results" / "reference" / "matrix" / "report.md"


@pytest.mark.parametrize(
    ("page", "reports", "count"),
    [
        ("README.md", "*", 52),
        ("docs/tutorial.md", "tutorial", 8),
        ("docs/matrix.md", "matrix", 8),
    ],
)
def test_every_number_in_a_pages_tables_is_in_a_published_report(page: str, reports: str, count: int) -> None:
    known: dict[str, set[str]] = {}
    for report in (ROOT / "results" / "reference").glob(f"{reports}/report.md"):
        for variant, cells in variant_rows(report):
            known.setdefault(variant, set()).update(cells)
    told = variant_rows(ROOT / page)
    assert len(told) >= count
    for variant, cells in told:
        assert set(cells) <= known[variant], variant


def test_the_published_matrix_is_what_the_command_makes_of_the_runs_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "report.md"
    result = CliRunner().invoke(cli.main, ["matrix", "results/reference/matrix", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8") == MATRIX.read_text(encoding="utf-8")


TUTORIAL = ROOT / "results" / "reference" / "tutorial" / "report.md"
MEASURED = re.compile(r"(?<![\d.,])\d[\d,]*(?:\.\d+)? ?(?:[µm]s\b|[%×])")  # a number with its unit


class TestTheTutorial:
    def test_says_nothing_that_was_measured_but_what_its_report_says(self) -> None:
        told, known = (
            MEASURED.findall(without_fences(text)) for text in (text_of("tutorial.md"), TUTORIAL.read_text("utf-8"))
        )
        assert len(told) > 80
        assert set(told) - set(known) == set()

    def test_explains_every_column_of_a_row_as_it_was_published(self) -> None:
        text = text_of("tutorial.md")
        (variant,) = re.findall(r"^`(.+)`:$", section(text, "One row, from left to right"), re.MULTILINE)
        told = re.findall(
            r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", section(text, "One row, from left to right"), re.MULTILINE
        )
        (header,) = re.findall(r"^\| variant \| (parity .+) \|$", text, re.MULTILINE)
        (cells,) = (cells for name, cells in variant_rows(ROOT / "docs" / "tutorial.md") if name == variant)
        published = dict(zip(header.split(" | "), cells, strict=True))
        explained = dict(told[2:])
        assert explained.items() <= published.items()
        assert set(published) - set(explained) == {"end-to-end vs baseline", "offline seq/s"}  # as those beside them

    def test_has_the_equations_and_the_step_of_the_code(self) -> None:
        source = (ROOT / "plugins" / "hand" / "src" / "harness_hand" / "lstm.py").read_text(encoding="utf-8")
        code = {" ".join(line.partition("  #")[0].split()) for line in source.splitlines()}
        shown = [
            line for words, text, _ in fences(text_of("tutorial.md")) if words == ["text"] for line in text.splitlines()
        ]
        assert len([line for line in shown if line]) == 12
        for line in filter(None, shown):
            assert " ".join(line.partition("  #")[0].split()) in code, line


def variant_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Rows of tables that begin with a variant, and their other cells."""
    rows = [line.strip("| ").split(" | ") for line in path.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    return [(row[0], row[1:]) for row in rows if "@" in row[0]]


def test_the_page_of_commands_says_what_each_says_of_itself_and_names_no_other() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^## (\S+)\n\n```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL))
    assert told == {name: help_of(name, command) for name, command in cli.main.commands.items()}


def help_of(name: str, command: click.Command) -> str:
    """What a terminal of 100 columns shows."""
    context = click.Context(command, info_name=f"harness {name}", max_content_width=100, terminal_width=100)
    return command.get_help(context).rstrip()
