"""The layers of the package: imports point down and have no cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import vop

ROOT = Path(vop.__file__).parent
# From top to bottom; modules on one line may import each other, without cycles.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"server", "mcp_server"},
    {"experiments"},
    {"benchmarks"},
    {"search"},
    {"export"},
    {"training"},
    {"evaluation"},
    {"converters"},
    {"models"},
    {"heads", "methods"},
    {"datasets"},
    {"backbones"},
    {"video"},
    {"storage"},
    {"utils"},
    {"config"},
    {"errors", "version"},
]


def modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(("vop", *parts)).removesuffix(".__init__")] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of `vop` that a module imports, also in functions and for type checking only."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}: a relative import; they are absolute here"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else node.module


def graph() -> dict[str, set[str]]:
    known = modules()
    return {name: set(imports(name, path, known)) - {name} for name, path in known.items()}


def layer(module: str) -> int:
    if module == "vop":
        return -1  # the public API: above everything, so that nothing imports it
    return next(number for number, names in enumerate(LAYERS) if module.split(".")[1] in names)


def test_imports_point_down():
    above = [f"{one} imports {other}" for one, used in graph().items() for other in used if layer(other) < layer(one)]
    assert not above, "\n".join(sorted(above))


def test_no_import_cycle():
    left = graph()
    while leaves := [name for name, used in left.items() if not used & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, "\n".join(f"{name} imports {', '.join(sorted(used & left.keys()))}" for name, used in left.items())
