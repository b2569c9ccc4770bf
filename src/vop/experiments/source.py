"""Hashes of the code behind a result: the method, the head, and the modules that they import from vop or their package.

Comments, docstrings and layout do not count. Neither do training and evaluation, which are the same for all arms.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec, resolve_name
from pathlib import Path
from site import getsitepackages, getusersitepackages
from typing import Any

from vop import heads, methods

_PARTS = ("vop.methods", "vop.heads", "vop.backbones")  # the packages that methods compute with


def code_of(method: str, head: str) -> dict[str, str]:
    """Return a hash of each module of a method and a head, by the module's name."""
    waiting = [
        base.__module__
        for found in (methods.find(method), heads.find(head))
        for base in found.__mro__
        if base.__module__.partition(".")[0] not in ("builtins", "torch", "typing", "abc")
    ]
    own = _module_filter({name.partition(".")[0] for name in waiting} - {"vop"})
    code: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        if name not in code:
            tree = _tree(name)
            code[name] = "unknown" if tree is None else _hash(tree)
            waiting += [] if tree is None else [found for found in _imported(tree, name, own) if own(found)]
    return dict(sorted(code.items()))


def changed_modules(before: dict[str, str] | None, now: dict[str, str]) -> list[str]:
    """Return the modules that differ between two states of the code; all of them if the earlier state is unknown."""
    before = before or {}
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _module_filter(added: set[str]) -> Callable[[str], bool]:
    """Return a function that tells whether a module counts.

    vop's `__init__` files do not count: they list names, and change with every new method. For a method outside vop,
    the files beside it count too, unless it is in site-packages.

    Args:
        added: the top-level packages of methods and heads outside vop.
    """
    files = [path for name in added if (path := _file(name)) is not None and path.name != "__init__.py"]
    folders = {path.parent for path in files} - {Path(path) for path in (*getsitepackages(), getusersitepackages())}

    def counts(name: str) -> bool:
        top = name.partition(".")[0]
        if top == "vop":
            return name.startswith(tuple(f"{part}." for part in _PARTS))
        path = _file(top) if folders else None
        return top in added or (path is not None and (path.parent in folders or path.parent.parent in folders))

    return counts


def _file(name: str) -> Path | None:
    """Return the source of a module, or None if it has none or does not exist."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if path is None:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return None
        path = spec.origin if spec and spec.has_location else None
    return Path(path) if path and path.endswith(".py") else None


def _tree(name: str) -> ast.Module | None:
    path = _file(name)
    if path is None or not path.is_file():
        return None
    return ast.parse(path.read_bytes())


def _hash(tree: ast.Module) -> str:
    """Return a hash of the code without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _is_docstring(
            node.body[:1]
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(json.dumps(_plain(tree)).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """Return a tree as lists. Python's own forms of it, as text or a dump, differ between versions of Python."""
    if isinstance(node, ast.JoinedStr):  # Python 3.12.1 adds empty texts to the formats of f-strings
        node.values = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
    if isinstance(node, ast.AST):
        filled = [(name, value) for name, value in ast.iter_fields(node) if value is not None and value != []]
        return [type(node).__name__, *([name, _plain(value)] for name, value in filled)]
    return [_plain(one) for one in node] if isinstance(node, list) else repr(node)


def _is_docstring(body: Sequence[ast.stmt]) -> bool:
    return bool(
        body
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    )


def _imported(tree: ast.Module, name: str, counts: Callable[[str], bool]) -> Iterator[str]:
    """Yield the names of all modules that a module imports, also inside functions."""
    path = _file(name)
    package = name if path is not None and path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            base = resolve_name(start, package) if node.level else start
            for alias in node.names:  # a name is a submodule, or something inside the module
                inner = f"{base}.{alias.name}"
                yield inner if counts(inner) and _file(inner) is not None else base
