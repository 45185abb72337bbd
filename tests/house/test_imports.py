"""No circles between modules, those of imports for types alone included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
ROOMS = {"vlmteach": "vlmteach", "callbacks": "vlmteach.callbacks", "benchmarks": "benchmarks"}
"""Folder -> the package it is imported as."""


def modules() -> dict[str, Path]:
    found = {}
    for folder, package in ROOMS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder)
            if inside.parts[0] in ("callbacks", "configs") and folder == "vlmteach":
                continue  # links to folders of the top level
            words = [package, *inside.with_suffix("").parts]
            found[".".join(words).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of ours that a file imports at its top or for types alone."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        named = node.body if isinstance(node, ast.If) else [node]
        for line in named:
            if isinstance(line, ast.Import):
                found |= {name.name for name in line.names}
            elif isinstance(line, ast.ImportFrom) and line.module:
                for name in line.names:
                    inner = f"{line.module}.{name.name}"
                    found.add(inner if inner in known else line.module)
    return found & known.keys()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, from one of them to itself; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_in_a_circle():
    known = modules()
    assert {"vlmteach.mini.world.draw", "vlmteach.callbacks", "benchmarks.sweep"} <= known.keys()
    assert not circle({name: imports(path, known) for name, path in known.items()})


def test_a_circle_through_types_is_found(tmp_path):
    (tmp_path / "a.py").write_text("import b\n")
    (tmp_path / "b.py").write_text("if TYPE_CHECKING:\n    from a import A\n")
    known = {name: tmp_path / f"{name}.py" for name in ("a", "b")}
    assert set(circle({name: imports(path, known) for name, path in known.items()})) == {"a", "b"}
