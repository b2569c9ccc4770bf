"""What opening a model imports: a library that takes 0.2 to 1 s is felt at every search from the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vop.models.pretrained import create

SLOW = ("transformers", "torch._dynamo", "sympy", "huggingface_hub", "accelerate", "peft", "lancedb", "av", "pyarrow")
CODE = f"""
import sys, vop
model = vop.load(sys.argv[1])
model.encode_text(["a dog"])
print(model.method_name, model.head_name, *(name for name in {SLOW} if name in sys.modules))
"""


def run(code: str, name: str) -> list[str]:
    """The method, the head and the slow libraries that were imported, in a Python of its own."""
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_mini_loads_without_slow_libraries():
    assert run(CODE, "mini") == ["zero-shot", "meanP"]


@pytest.mark.parametrize(
    ("method", "head"), [("vop", "meanP"), ("vop-f+c", "meanP"), ("bias", "meanP"), ("vop-f+p", "seqTransf")]
)
def test_runs_load_without_slow_libraries(tmp_path, method, head):
    create(method, "mini", head=head, num_frames=4).save_pretrained(tmp_path)
    assert run(CODE, str(tmp_path)) == [method, head]


def test_slow_libraries_are_noticed():
    assert "transformers" in run(f"import transformers\n{CODE}", "mini")
