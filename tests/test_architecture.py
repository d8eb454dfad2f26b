"""The house rules that a machine can keep: layers, cycles, sizes, no pickle, no global seeds."""

import ast
import itertools
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "prunescope"
LAYERS = {
    0: ("types", "registry", "rng", "config", "limits", "discretion", "extras", "crossing"),
    1: ("data", "models", "information"),
    2: ("pruning", "measures", "quantization"),
    3: ("training", "results", "export"),
    4: ("experiments", "report", "integrations"),
    5: ("cli", "catalogue", "live"),
}
LAYER = {name: number for number, names in LAYERS.items() for name in names}
READ_BY_REPORT = ("results", "types", "registry", "rng", "config", "limits", "crossing")
FILES = sorted(SOURCE.rglob("*.py"))
TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(("prunescope", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def package(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path, *, top_level_only: bool = False) -> list[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = []
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return found


@pytest.mark.parametrize("path", FILES, ids=module)
def test_imports_run_one_way(path):
    """A module imports only from its own package and from lower layers; report reads results only."""
    here = package(module(path))
    if not here:
        return  # the package's face hands the verbs on
    for name in imports(path):
        there = package(name) if name.startswith("prunescope.") else ""
        if not there or there == here or there == "__version__":
            continue
        assert there in LAYER, f"{module(path)} imports {name}, whose package stands in no layer"
        assert LAYER[there] < LAYER[here] or LAYER[here] == LAYER[there] == 0 or (here, there) in ALLOWED, (
            f"{module(path)} (layer {LAYER[here]}) imports {name} (layer {LAYER[there]})"
        )
        if here == "report":
            assert there in READ_BY_REPORT, f"{module(path)} imports {name}: report reads results only"


ALLOWED = {
    ("measures", "pruning"),
    ("export", "results"),
    ("cli", "catalogue"),
    ("cli", "live"),
    ("experiments", "integrations"),  # a run hands its records on to trackers, which know nothing of experiments
}


def test_no_import_cycle():
    known = {module(p) for p in FILES}
    graph = {module(p): {n for n in imports(p) if n in known and n != module(p)} for p in FILES}
    for name in graph:  # importing a submodule runs its package's face, which is no cycle of its own
        graph[name] = {n for n in graph[name] if not name.startswith(n + ".")}
    visiting, done = [], set()

    def visit(name: str) -> None:
        if name in done:
            return
        assert name not in visiting, f"import cycle: {' -> '.join([*visiting[visiting.index(name):], name])}"
        visiting.append(name)
        for other in sorted(graph[name]):
            visit(other)
        done.add(visiting.pop())

    for name in sorted(graph):
        visit(name)


@pytest.mark.parametrize("path", FILES, ids=module)
def test_sizes(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 400, f"{path.name} has {len(lines)} lines: split it"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= 60, f"{path.name}: {node.name} has {length} lines: split it"


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.js")) + sorted(SOURCE.rglob("*.css")), ids=lambda p: p.name)
def test_sizes_of_the_page(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=module)
def test_no_pickle_is_loaded_and_no_global_generator_is_seeded(path):
    forbidden = {"pickle.load", "pickle.loads", "joblib.load", "np.random.seed", "numpy.random.seed", "random.seed"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name not in forbidden, f"{path.name}:{node.lineno} calls {name}"
            allowed = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in ("np.load", "numpy.load"):
                assert allowed.get("allow_pickle") == "False", f"{path.name}:{node.lineno}: np.load without allow_pickle=False"
            if name == "torch.load":
                assert allowed.get("weights_only") == "True", f"{path.name}:{node.lineno}: torch.load without weights_only=True"


@pytest.mark.parametrize("path", FILES, ids=module)
def test_every_public_thing_says_what_it_is(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path.name} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


@pytest.mark.parametrize("path", TESTS, ids=lambda p: p.name)
def test_every_test_can_fail(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            body = ast.unparse(node)
            checks = ("assert", "pytest.raises", "raises(", "check(", "check_")
            assert any(c in body for c in checks), f"{path.name}: {node.name} asserts nothing"


def test_file_names_are_nouns_of_the_field():
    for path in itertools.chain(FILES, TESTS):
        assert path.stem not in ("utils", "util", "helpers", "common", "misc", "base"), f"{path}: name it after what it holds"
