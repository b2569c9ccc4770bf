"""Which code a result is made with."""

from __future__ import annotations

import ast

from vop.studies.source import _hash, changed_modules, code_of


def test_the_modules_of_a_method_and_a_head():
    code = code_of("vop-f+p", "x-pool")
    assert {"vop.methods.vop_f", "vop.methods.vop_p", "vop.methods.prompts", "vop.heads.x_pool"} <= code.keys()
    assert {"vop.methods.base", "vop.heads.base", "vop.backbone.clip", "vop.backbone.layers"} <= code.keys()
    assert not {"vop.methods", "vop.methods.lora", "vop.model", "vop.cli"} & code.keys()
    assert "unknown" not in code.values()
    assert code == code_of("vop-f+p", "x-pool")


def test_methods_differ_in_their_own_modules():
    changed = changed_modules(code_of("vop", "meanP"), code_of("vop-p", "meanP"))
    assert "vop.methods.vop_p" in changed
    assert "vop.methods.base" not in changed
    assert changed_modules(None, {"a": "1"}) == ["a"]


def test_what_is_said_beside_the_code_does_not_count():
    plain = "def f(x):\n    return x + 1\n"
    assert _hash(ast.parse(plain)) == _hash(ast.parse('"""A."""\ndef f(x):  # b\n    """C."""\n    return (x + 1)'))
    assert _hash(ast.parse(plain)) != _hash(ast.parse(plain.replace("1", "2")))
