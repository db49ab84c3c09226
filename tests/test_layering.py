"""Who may import whom, read from the source: the architecture as a test."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE = ROOT / "harness"
MOST_LINES = 500

# Every module of the core, and which of ours it imports; typing imports count.
OURS: dict[str, set[str]] = {
    "contract": set(),
    "stats": set(),
    "estimates": {"stats"},
    "verdicts": {"stats"},
    "environment": {"contract"},
    "architectures": {"contract", "reference"},
    "hookspecs": {"contract"},
    "reference": {"contract"},
    "ragged": {"contract"},
    "limits": set(),
    "rounding": {"contract"},
    "parity": {"contract", "rounding"},
    "gradients": {"contract", "parity"},
    "audits": {"contract", "parity", "rounding", "stats"},
    "claims": {"contract"},
    "checked_device": {"contract"},
    "rules": {"claims", "contract", "gradients", "parity"},
    "testing": {"catalog", "checked_device", "contract", "rules"},
    "new_plugin": {"", "catalog", "contract"},
    "catalog": {"contract", "hookspecs"},
    "named_layer": {"contract"},
    "oracle": {"catalog", "contract", "named_layer"},
    "wrapping": {"contract", "named_layer", "oracle"},
    "own_model": {"catalog", "contract", "hookspecs", "named_layer", "oracle", "wrapping"},
    "description": {"architectures", "catalog", "contract"},
    "suite": {"contract", "suites"},
    "suites": set(),
    "plan": {"catalog", "contract", "suite"},
    "forecast": {"plan"},
    "journal": {"contract"},
    "schema": set(),
    "columns": {"schema"},
    "samples": {"contract"},
    "store": {"capacity", "columns", "contract", "journal", "samples", "schema", "tables"},
    "resumption": {"contract"},
    "tables": {
        *("audits", "columns", "contract", "estimates", "limits", "samples", "schema", "stats", "store", "suite"),
        "verdicts",
    },
    "capacity": {"estimates", "stats", "store", "tables", "verdicts"},
    "formatting": {"contract", "schema"},
    "shapes": {"contract", "formatting", "store", "tables"},
    "limit_report": {"formatting", "shapes", "store", "tables"},
    "costs_report": {"formatting", "shapes", "store", "tables"},
    "load_report": {"estimates", "formatting", "shapes", "store", "tables"},
    "summary_report": {"contract", "formatting", "store", "tables"},
    "report_parts": {
        *("costs_report", "formatting", "limit_report", "load_report", "rounding", "shapes", "stats", "store"),
        *("summary_report", "tables"),
    },
    "baselines": {"estimates", "stats", "store", "tables", "verdicts"},
    "vega": {"contract"},
    "charts": {"formatting", "limits", "shapes", "store", "summary_report", "tables", "vega"},
    "page": {"contract", "journal", "vega"},
    "html_report": {
        *("baselines", "charts", "contract", "formatting", "page", "report_parts", "schema", "shapes", "store"),
        *("summary_report", "tables", "vega"),
    },
    "report": {
        *("contract", "formatting", "html_report", "journal", "page", "report_parts", "schema", "store"),
        *("summary_report", "vega"),
    },
    "sides": {"capacity", "contract", "estimates", "formatting", "samples", "store", "suite", "tables"},
    "load_pairs": {"sides", "verdicts"},
    "interchange": {"", "contract", "formatting", "samples", "sides", "store", "tables"},
    "formats": {
        *("", "catalog", "columns", "contract", "formatting", "html_report", "interchange", "report", "report_parts"),
        *("schema", "store", "summary_report", "tables"),
    },
    "versions": {"contract"},
    "attempts": {"contract", "journal", "schema"},
    "drift": {"sides", "stats"},
    "compare": {
        *(
            "capacity",
            "contract",
            "drift",
            "estimates",
            "formatting",
            "load_pairs",
            "sides",
            "stats",
            "store",
            "tables",
        ),
        "verdicts",
    },
    "document": {"contract", "formatting"},
    "compare_report": {"compare", "formatting", "document", "sides", "verdicts"},
    "history": {"compare", "contract", "estimates", "sides", "stats"},
    "history_report": {"compare_report", "formatting", "history", "document", "sides", "stats"},
    "matrix": {"attempts", "compare", "contract", "history", "sides", "stats", "store", "versions"},
    "matrix_report": {"compare_report", "document", "history_report", "matrix", "sides"},
    "compare_charts": {"charts", "compare", "compare_report", "formatting", "history", "matrix", "stats", "vega"},
    "document_page": {"document", "formatting", "page", "vega", "verdicts"},
    "run_folders": {"contract", "schema", "store"},
    "notices": set(),
    "ending": set(),
    "options": {"contract", "formats"},
    "terminal": {
        *("contract", "formatting", "load_report", "notices", "document", "shapes", "store", "summary_report"),
        *("tables", "verdicts"),
    },
    "comparing": {
        *("attempts", "compare", "compare_charts", "compare_report", "contract", "document", "document_page"),
        *("history", "history_report", "journal", "matrix", "matrix_report", "run_folders", "schema", "sides"),
        *("store", "terminal", "vega"),
    },
    "benching": {"attempts", "contract", "journal", "notices", "schema", "versions"},
    "importing": {"contract", "journal", "report", "schema", "sides", "store", "suite", "tables", "terminal"},
    "engine": set(),
    "engine.noise": set(),
    "engine.calls": {"contract", "parity"},
    "engine.device": {"catalog", "checked_device", "contract"},
    "engine.timing": {"contract", "engine.calls", "engine.device", "engine.noise"},
    "engine.arrivals": set(),
    "engine.probes": {"estimates", "stats"},
    "engine.serving": {"contract", "engine.arrivals", "engine.calls", "engine.timing", "parity"},
    "engine.accuracy": {"contract"},
    "engine.lengths": {"contract", "engine.calls", "engine.timing"},
    "engine.keeper": set(),
    "engine.process_tree": set(),
    "engine.machine": {"contract", "limits"},
    "engine.audit": {"audits", "contract", "engine.calls", "engine.machine", "engine.process_tree", "parity"},
    "engine.costs": set(),
    "engine.energy": {"contract"},
    "engine.process_state": set(),
    "engine.watch": {"engine.process_tree"},
    "engine.protocol": {"contract"},
    "engine.worker": {
        *("", "architectures", "audits", "catalog", "claims", "contract", "description", "engine.accuracy"),
        *("engine.arrivals", "engine.audit", "engine.calls", "engine.costs", "engine.device", "engine.energy"),
        *("engine.lengths", "engine.machine"),
        *("engine.keeper", "engine.process_state", "engine.protocol", "engine.serving", "engine.timing", "environment"),
        *("gradients", "journal", "parity", "testing"),
    },
    "engine.replies": {"audits", "engine.noise", "gradients", "parity"},
    "engine.process": {"engine.process_tree", "engine.protocol", "engine.replies", "engine.watch"},
    "engine.survey": {"catalog", "contract", "description", "engine.process", "own_model"},
    "engine.context": {"catalog", "engine.process", "plan", "store"},
    "engine.verification": {
        *("architectures", "audits", "contract", "engine.context", "engine.energy", "engine.process", "gradients"),
        *("parity", "plan"),
    },
    "engine.in_process": {
        *("audits", "catalog", "contract", "engine.audit", "engine.calls", "engine.context", "engine.timing"),
        *("engine.verification", "engine.worker", "plan"),
    },
    "engine.conformance": {
        *("catalog", "contract", "engine.context", "engine.process", "engine.verification", "plan", "testing"),
    },
    "engine.scoring": {
        *("engine.accuracy", "engine.context", "engine.process", "engine.verification", "plan", "rounding"),
    },
    "engine.measurement": {
        *("audits", "engine.context", "engine.process", "engine.verification", "estimates", "parity", "plan"),
        *("samples", "stats"),
    },
    "engine.load": {
        *("audits", "engine.arrivals", "engine.context", "engine.probes", "engine.process", "engine.verification"),
        *("estimates", "parity", "plan", "stats", "suite"),
    },
    "engine.run": {
        *("", "catalog", "contract", "engine.context", "engine.load", "engine.measurement", "engine.process"),
        *("engine.scoring", "engine.verification", "environment", "limits", "plan", "store"),
    },
    "running": {
        *("catalog", "contract", "engine.run", "engine.survey", "environment", "forecast", "journal", "notices"),
        *("own_model", "plan", "report", "resumption", "schema", "store", "suite", "terminal"),
    },
    "format_folders": {
        *("catalog", "contract", "engine.process", "engine.survey", "formats", "journal", "store", "terminal"),
    },
    "pytest_items": {
        *(
            "catalog",
            "contract",
            "engine.in_process",
            "engine.process",
            "engine.survey",
            "interchange",
            "plan",
            "sides",
        ),
        "suite",
    },
    "pytest_plugin": {"contract", "engine.in_process", "engine.process", "pytest_items", "suite"},
    "cli": {
        *(
            "",
            "benching",
            "catalog",
            "comparing",
            "contract",
            "ending",
            "engine.conformance",
            "engine.survey",
            "formats",
        ),
        *(
            "history",
            "importing",
            "journal",
            "new_plugin",
            "notices",
            "options",
            "own_model",
            "plan",
            "report",
            "format_folders",
            "running",
            "store",
            "suite",
            "suites",
            "tables",
            "terminal",
        ),
    },
    "": {"architectures", "catalog", "contract", "hookspecs", "ragged", "store", "wrapping"},
}
# Every package that is not ours and not Python's, and the modules that may import it.
THEIRS: dict[str, set[str]] = {
    "click": {"cli", "notices", "options", "running"},
    "rich": {"terminal"},
    "pytest": {"pytest_items", "pytest_plugin", "testing"},
    "threadpoolctl": {"engine.in_process"},
    "pandas": {
        *("baselines", "capacity", "charts", "columns", "costs_report", "drift", "formatting", "html_report"),
        *("interchange", "limit_report"),
        *("report", "report_parts", "samples", "shapes", "sides", "store", "summary_report", "tables"),
    },
    "scipy": {"stats"},
    "jinja2": {"page"},
    "packaging": {"versions", "benching"},
    "markdown_it": {"page"},
    "vl_convert": {"page"},
    "pluggy": {"catalog", "hookspecs"},
    "pydantic": {"engine.replies", "suite"},
    "psutil": {
        *("engine.audit", "engine.costs", "engine.noise", "engine.process", "engine.process_tree", "engine.watch"),
        "environment",
    },
    "safetensors": {"engine.worker", "oracle", "wrapping"},
    "numpy": {
        *(
            "charts",
            "columns",
            "contract",
            "drift",
            "engine.accuracy",
            "engine.arrivals",
            "engine.calls",
            "engine.device",
            "engine.lengths",
            "engine.machine",
            "engine.serving",
            "engine.timing",
            "engine.probes",
            "engine.worker",
            "gradients",
            "oracle",
            "parity",
        ),
        *("ragged", "reference", "rounding", "rules", "sides", "stats", "tables", "testing", "vega"),
    },
}
# What a plugin may import of the harness; the second only to name types.
PLUGINS_MAY = {"harness"}
PLUGINS_MAY_FOR_TYPES = {"harness.contract"}


def core_modules() -> dict[str, Path]:
    """Every module of the core by its name below `harness`."""
    found = {}
    for path in sorted(CORE.rglob("*.py")):
        parts = path.relative_to(CORE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(path: Path, types_too: bool = True) -> set[str]:
    """The full names of the modules that a file imports anywhere; what stands under TYPE_CHECKING only if wanted."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not types_too:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                below = ROOT.joinpath(*whole.split("."))
                is_module = whole.startswith("harness.") and (below.with_suffix(".py").is_file() or below.is_dir())
                found.add(whole if is_module else str(node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def below_harness(names: set[str]) -> set[str]:
    return {name.removeprefix("harness").removeprefix(".") for name in names if name.split(".")[0] == "harness"}


MODULES = core_modules()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_the_core_knows_no_device_by_name_but_the_cpu(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not texts & {"cuda", "gpu", "hip", "mps", "npu", "rocm", "tpu", "xla", "xpu"}


def test_every_module_of_the_core_has_its_place_in_the_table() -> None:
    assert set(OURS) == set(MODULES)


@pytest.mark.parametrize("module", OURS)
def test_a_module_imports_no_more_of_ours_than_its_place_allows(module: str) -> None:
    found = below_harness(imports(MODULES[module]))
    if module == "":
        found |= {"catalog", "ragged", "store", "wrapping"} & set(OURS)  # by name, when first used
    assert found == OURS[module]


def test_nothing_in_the_core_imports_a_framework_or_what_is_not_in_the_table() -> None:
    found: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        for name in imports(path):
            top = name.split(".")[0]
            if top != "harness" and top not in sys.stdlib_module_names:
                found.setdefault(top, set()).add(module)
    assert found == THEIRS


def test_the_contract_and_the_hooks_import_nothing_slow_but_to_name_types() -> None:
    for module in ("", "contract", "architectures", "hookspecs", "catalog"):
        tops = {name.split(".")[0] for name in imports(MODULES[module], types_too=False)}
        assert tops <= {"harness", "pluggy", *sys.stdlib_module_names}


def test_a_worker_does_all_it_is_asked_for_without_what_is_slow_to_import() -> None:
    wanted = sorted(f"harness.{name}".rstrip(".") for name in OURS["engine.worker"])
    slow = {"pandas", "pydantic", "scipy", "rich", "click"}
    code = f"import sys, {', '.join(wanted)}; print({slow} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"  # it is started some ten times in the shortest run


def test_the_step_that_installs_a_library_imports_none_that_it_may_have_broken() -> None:
    code = "import sys, harness.cli, harness.benching; print({'numpy', 'pandas', 'scipy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_engine_knows_nothing_of_reports_and_reports_nothing_of_the_engine() -> None:
    outward = {
        "attempts",
        "baselines",
        "benching",
        "capacity",
        "charts",
        "cli",
        "compare",
        "compare_charts",
        "compare_report",
        "comparing",
        "drift",
        "history",
        "history_report",
        "load_pairs",
        "formats",
        "html_report",
        "importing",
        "interchange",
        "limit_report",
        "load_report",
        "matrix",
        "matrix_report",
        "page",
        "document",
        "document_page",
        "report",
        "report_parts",
        "run_folders",
        "format_folders",
        "running",
        "sides",
        "summary_report",
        "tables",
        "terminal",
        "verdicts",
        "versions",
    }
    for module in MODULES:
        found = below_harness(imports(MODULES[module]))
        if module.startswith("engine"):
            assert not found & outward
        if module in outward - {"cli", "format_folders", "running"} | {"store", "plan", "suite", "parity", "gradients"}:
            assert not {name for name in found if name.startswith("engine") or name == "cli"}


def test_estimates_verdicts_and_limits_are_functions_of_numbers_that_read_no_file_and_no_clock() -> None:
    for module in ("stats", "estimates", "verdicts", "limits"):
        tops = {name.split(".")[0] for name in imports(MODULES[module])}
        arithmetic = {"__future__", "collections", "dataclasses", "enum", "functools", "itertools", "math", "re"}
        assert tops <= {"harness", "numpy", "scipy", "statistics", "types", "typing"} | arithmetic


def test_no_module_takes_a_name_that_another_keeps_to_itself() -> None:
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                found |= {(module, alias.name) for alias in node.names if alias.name.startswith("_")}
    assert found == set()


def test_the_core_never_asks_for_a_runtime_or_a_model_by_name() -> None:
    names = {"eager", "onnxruntime", "torch", "onnx", "torch-lstm", "torch-bilstm", "hand-lstm", "null"}
    names |= {"torch-gru", "torch-bigru", "hand-gru", "jit", "jit-lstm"}
    found = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
                found.add((module, node.value))
    assert found == set()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "plugins").glob("*/src/**/*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_a_plugin_imports_what_every_stranger_may(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[2]
    for types_too, allowed in ((False, PLUGINS_MAY), (True, PLUGINS_MAY | PLUGINS_MAY_FOR_TYPES)):
        found = {name for name in imports(path, types_too) if name.split(".")[0] == "harness"}
        assert found <= allowed
    siblings = {name.split(".")[0] for name in imports(path) if name.startswith("harness_")}
    assert siblings <= {own} | asked_for(path.parents[2] / "pyproject.toml")


def asked_for(project: Path) -> set[str]:
    """The packages of the plugins that a plugin's package depends on, as any stranger's may."""
    names = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.match(r"rnn-(harness-[a-z0-9-]+)", name) for name in names)
    return {match[1].replace("-", "_") for match in found if match}


UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize(
    "path",
    [*MODULES.values(), *sorted((ROOT / "plugins").glob("*/src/**/*.py"))],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_nothing_is_unpickled(path: Path) -> None:
    """Data and weights come from strangers, and a pickle is a program."""
    assert not {name.split(".")[0] for name in imports(path)} & UNPICKLERS
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) != "torch.load"
            assert "pickle" not in node.attr
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False"
        if isinstance(node, ast.keyword) and node.arg == "weights_only":
            assert ast.unparse(node.value) == "True"


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_a_reader_can_hold(module: str) -> None:
    assert len(MODULES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES
