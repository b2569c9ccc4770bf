"""The code that a result depends on."""

from __future__ import annotations

import ast
import sys

from vop import methods
from vop.experiments.source import _hash, changed_modules, code_of


def test_code_includes_the_modules_of_method_and_head():
    code = code_of("vop-f+p", "x-pool")
    assert {"vop.methods.vop_f", "vop.methods.vop_p", "vop.methods.prompts", "vop.heads.x_pool"} <= code.keys()
    assert {
        "vop.methods.base",
        "vop.heads.base",
        "vop.backbones.towers",
        "vop.backbones.layers",
    } <= code.keys()
    assert not {"vop.methods", "vop.methods.lora", "vop.models.model", "vop.cli"} & code.keys()
    assert "unknown" not in code.values()
    assert code == code_of("vop-f+p", "x-pool")


def test_methods_differ_only_in_their_own_modules():
    changed = changed_modules(code_of("vop", "meanP"), code_of("vop-p", "meanP"))
    assert "vop.methods.vop_p" in changed
    assert "vop.methods.base" not in changed
    assert changed_modules(None, {"a": "1"}) == ["a"]


def test_third_party_methods_include_their_package(tmp_path, monkeypatch):
    (tmp_path / "my_method.py").write_text(
        "import json\nimport torch\nfrom my_parts import SHARE\nfrom vop.methods.baselines import Bias\n\n\n"
        "class Mine(Bias):\n    pass\n"
    )
    (tmp_path / "my_parts.py").write_text("import my_more.inner\nSHARE = 1\n")
    (tmp_path / "my_more").mkdir()
    (tmp_path / "my_more" / "__init__.py").touch()
    (tmp_path / "my_more" / "inner.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("my_method", "my_parts", "my_more", "my_more.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(methods.METHODS, "mine", "my_method:Mine")
    code = code_of("mine", "meanP")
    assert {"my_method", "my_parts", "my_more.inner", "vop.methods.baselines"} <= code.keys()
    assert not {"json", "torch"} & code.keys()
    (tmp_path / "my_parts.py").write_text("import my_more.inner\nSHARE = 2\n")
    assert changed_modules(code, code_of("mine", "meanP")) == ["my_parts"]


def test_comments_and_docstrings_do_not_count():
    plain = "def f(x):\n    return x + 1\n"
    assert _hash(ast.parse(plain)) == _hash(ast.parse('"""A."""\ndef f(x):  # b\n    """C."""\n    return (x + 1)'))
    assert _hash(ast.parse(plain)) != _hash(ast.parse(plain.replace("1", "2")))


def test_all_versions_of_python_agree():
    """Python 3.10 to 3.13 gave this hash. `ast.unparse` and `ast.dump` write other texts in some of them."""
    code = (
        'class A(B):\n    def f(self, x=None, *, y=(1, "é")):\n'
        """        return f"{x!r:>{y[0]}} '{x[1]}'" f'{y}', x[1:, ...], -1e9, b"\\0"\n"""
    )
    assert _hash(ast.parse(code)) == "ada63a0a7817b066"
    assert _hash(ast.parse('x = "", 1')) != _hash(ast.parse("x = 1,"))
