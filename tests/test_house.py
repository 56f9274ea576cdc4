"""The shape of the house: what imports what, and what the core can do without."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import graphnet_icecube2nd

PACKAGE = Path(graphnet_icecube2nd.__file__).parent
ADAPTER = "graphnet_adapter"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Data flows downward: a module imports only from rows above its own, or from its own.
# A folder stands for all in it that has no row of its own. New rooms get a row.
ROWS = (
    (
        *("version", "errors", "lazy", "files", "config", "memory", "notices", "plots"),
        "registry",
    ),
    ("conventions", "statistics"),
    ("detector.text_table", "detector.detx"),
    ("detector.geometry",),
    ("detector.ice",),
    ("detector",),
    ("events",),
    ("tasks",),
    ("nn",),
    ("models",),
    ("store",),
    ("results",),
    ("loading",),
    ("simulation",),
    ("likelihood",),
    ("training",),
    ("tuning",),
    ("inference",),
    ("published",),
    ("calibration",),
    ("ensemble",),
    ("evaluation",),
    ("report",),
    (ADAPTER,),
    ("commands",),
    ("cli",),
)
# Rooms that may import even less than their row says.
ONLY_FROM: dict[str, set[str]] = {}

# These import modules of ours inside functions: they need a library that is optional
# (Lightning, h5py, ...), or are names that are looked up when they are asked for.
LATE = ("store.preparation", "commands", "cli")

# Not needed by the core; where they are missing it imports all the same.
NOT_IN_CORE = (
    *("graphnet", "torch_geometric", "pytorch_lightning", "lightning"),
    *("matplotlib", "pandas", "pyarrow", "sklearn", "scipy", "polars"),
    *("h5py", "sqlite_utils", "typer", "rich", "astropy", "astropy_healpix"),
    *("km3io", "km3det", "uproot", "awkward"),
)
# Rooms that are not core: GraphNeT's components, and what the command line is made of.
NOT_CORE = (ADAPTER, "commands")

# The text of an argument stands alone in a tooltip, so it begins with none of these.
NO_BEGINNING = (
    *("Of", "To", "As", "What", "Which", "Where", "With", "In", "On", "At", "By"),
    *("For", "From"),
)

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""


def module_name(path: Path) -> str:
    """The name below the package: `events.batch`, or `` for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def row(name: str) -> int:
    """The row a module stands in; the most particular entry counts."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        for number, entries in enumerate(ROWS):
            if ".".join(parts[:length]) in entries:
                return number
    raise AssertionError(f"{name} has no row in tests/test_house.py")


def package_of(path: Path) -> str:
    """The package that a relative import in a file starts from."""
    return ".".join([PACKAGE.name, *path.parent.relative_to(PACKAGE).parts])


def own_imports(text: str, package: str) -> Iterator[tuple[str, int]]:
    """Modules of ours that code imports, anywhere in it, and the line."""
    for node in ast.walk(ast.parse(text)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: 1 - node.level or None]
                base = ".".join([*above, *filter(None, [base])])
            # `from package import x` may name a module or what is in it.
            inner = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if is_module(name) else base for name in inner]
        for name in names:
            if name.split(".")[0] == PACKAGE.name:
                yield name.removeprefix(PACKAGE.name).lstrip("."), node.lineno


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_are_modules() -> None:
    names = {module_name(path) for path in MODULES}
    assert {"", "conventions", "events.batch", "models", "models.weights"} <= names


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_come_from_rows_above(path: Path) -> None:
    name = module_name(path)
    text = path.read_text(encoding="utf-8")
    for imported, line in own_imports(text, package_of(path)):
        place = f"{path.relative_to(PACKAGE.parent)}:{line} imports {imported or '.'}"
        if not name:
            # The package shows the core to its users, and nothing else.
            assert imported.split(".")[0] != ADAPTER, place
            continue
        assert imported, f"{place}: the package imports its rooms, not they it"
        assert row(imported) <= row(name), f"{place}, a later row"
        room = name.split(".")[0]
        if room in ONLY_FROM:
            assert imported.split(".")[0] in ONLY_FROM[room] | {room}, place


def test_own_modules_are_imported_at_the_top() -> None:
    """An import in a function hides a circle, or keeps an optional library away."""
    for path in MODULES:
        name = module_name(path)
        if not name or any(f"{name}.".startswith(f"{late}.") for late in LATE):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        for function in functions:
            text = ast.unparse(function)
            late_imports = [found for found, _ in own_imports(text, package_of(path))]
            assert not late_imports, f"{name}, {function.name}: {late_imports}"


def test_no_circles() -> None:
    """Neither modules nor rooms import each other in a circle, also not late."""
    modules: dict[str, set[str]] = {}
    rooms: dict[str, set[str]] = {}
    for path in MODULES:
        name = module_name(path)
        if not name:
            continue
        text = path.read_text(encoding="utf-8")
        imported = {found for found, _ in own_imports(text, package_of(path))}
        modules[name] = imported - {name}
        room = name.split(".")[0]
        rooms.setdefault(room, set()).update(found.split(".")[0] for found in imported)
        rooms[room].discard(room)
    for graph in (modules, rooms):
        # Raises CycleError, which names the circle.
        assert list(graphlib.TopologicalSorter(graph).static_order())


def test_the_check_sees_imports() -> None:
    """Of each form, also inside functions."""
    text = (
        "import graphnet_icecube2nd.nn.block as b\n"
        "from graphnet_icecube2nd import conventions\n"
        "from graphnet_icecube2nd.events.batch import PackedBatch\n"
        "from . import registry\n"
        "from ..nn import packing\n"
        "from .. import FEATURE_NAMES\n"
        "import torch\n"
        "def late():\n"
        "    from graphnet_icecube2nd.graphnet_adapter import register\n"
    )
    package = package_of(PACKAGE / "models" / "deepice.py")
    assert package == package_of(PACKAGE / "models" / "__init__.py")
    assert package_of(PACKAGE / "conventions.py") == PACKAGE.name
    assert sorted(own_imports(text, package), key=lambda found: found[1]) == [
        ("nn.block", 1),
        ("conventions", 2),
        ("events.batch", 3),
        ("models.registry", 4),
        ("nn.packing", 5),
        ("", 6),
        ("graphnet_adapter", 9),
    ]
    assert row("tasks.direction.losses") < row("models.registry") < row(ADAPTER)
    assert row("detector.geometry") < row("detector.ice") < row("detector.angles")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_says_what_it_is(path: Path) -> None:
    """Every public module has a docstring."""
    if path.name.startswith("_") and path.name != "__init__.py":
        return
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{path.relative_to(PACKAGE.parent)} has no docstring"
    assert text.splitlines()[0].endswith((".", "?")), text.splitlines()[0]


def argument_texts(docstring: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each argument in a Google-style `Args:` section."""
    section = re.search(r"^Args:\n((?:[ ].*\n?|\n)*)", docstring, re.MULTILINE)
    for line in section[1].splitlines() if section else ():
        if found := re.match(r" {4}(\S[^:]*): *(.*)", line):
            yield found[1], found[2]


def test_texts_of_arguments_stand_alone() -> None:
    """They are nouns or sentences, not the end of a sentence about the name."""
    seen = 0
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                for name, text in argument_texts(ast.get_docstring(node) or ""):
                    seen += 1
                    place = f"{module_name(path)}, {node.name}, {name}: {text}"
                    assert not text.startswith(tuple(f"{w} " for w in NO_BEGINNING)), (
                        place
                    )
    assert seen > 100


def test_only_the_adapter_imports_graphnet() -> None:
    for path in MODULES:
        if module_name(path).split(".")[0] == ADAPTER:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top not in ("graphnet", "torch_geometric"), f"{path}: {name}"


def test_only_models_ask_whether_it_is_deepice() -> None:
    for path in MODULES:
        if module_name(path).split(".")[0] == "models":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
                assert "DeepIce" not in ast.unparse(node.args[1]), path


def test_core_needs_torch_numpy_and_safetensors_only() -> None:
    """Every module outside the adapter imports where the others are not to be had."""
    core = [
        ".".join([PACKAGE.name, *filter(None, [module_name(path)])])
        for path in MODULES
        if module_name(path).split(".")[0] not in NOT_CORE
    ]
    code = BLOCK.format(blocked=set(NOT_IN_CORE)) + (
        "import importlib\n"
        f"for name in {core}: importlib.import_module(name)\n"
        "import graphnet_icecube2nd as package\n"
        "assert all(hasattr(package, name) for name in package.__all__)\n"
        f"leaked = {set(NOT_IN_CORE)} & set(sys.modules)\n"
        "assert not leaked, leaked\n"
        "print(len(package.list_models()))\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 7


def test_importing_the_core_loads_nothing_more() -> None:
    """Where GraphNeT is installed, the core does not wake it."""
    code = (
        "import sys, graphnet_icecube2nd\n"
        f"leaked = {set(NOT_IN_CORE[:5])} & set(sys.modules)\n"
        f"leaked |= {{m for m in sys.modules if '{ADAPTER}' in m}}\n"
        "assert not leaked, leaked\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("blocked", ["graphnet", "torch_geometric"])
def test_adapter_says_how_to_get_graphnet(blocked: str) -> None:
    if blocked != "graphnet" and importlib.util.find_spec("graphnet") is None:
        pytest.skip("needs GraphNeT")
    code = BLOCK.format(blocked={blocked}) + (
        "try:\n"
        "    import graphnet_icecube2nd.graphnet_adapter\n"
        "except ImportError as error:\n"
        "    print(error)\n"
        "else:\n"
        "    raise SystemExit('imported')\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    for words in ("needs GraphNeT", "its source", "graphnet-icecube2nd[graphnet]"):
        assert words in done.stdout
    assert f"No module named '{blocked}" in done.stdout


def test_public_names() -> None:
    """Other people's code and the acceptance checks use them."""
    promised = {
        *("FEATURE_NAMES", "PackedBatch", "PulseMap", "DeepIce", "DeepIceGNN"),
        *("build_model", "list_models", "load_competition_weights"),
        *("VonMisesFisherLoss", "AngularDistanceLoss", "CombinedDirectionLoss"),
    }
    assert promised <= set(graphnet_icecube2nd.__all__)
    for name in graphnet_icecube2nd.__all__:
        assert getattr(graphnet_icecube2nd, name) is not None
