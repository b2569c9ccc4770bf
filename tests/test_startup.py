"""Opening a model imports no slow library: each takes 0.2 to 1 s at every search from the command line."""

from __future__ import annotations

import subprocess
import sys

from vop.models.pretrained import create

SLOW = ("transformers", "torch._dynamo", "sympy", "huggingface_hub", "accelerate", "peft", "lancedb", "av", "pyarrow")
CODE = f"""
import sys, vop
for folder in sys.argv[1:]:
    model = vop.load(folder)
    model.encode_text(["a dog"])
    print(model.method_name, model.head_name, *(name for name in {SLOW} if name in sys.modules))
"""


def run(code: str, *models: str) -> list[list[str]]:
    """For each model its method, its head, and the slow libraries imported so far, in a new process."""
    done = subprocess.run([sys.executable, "-c", code, *models], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_models_load_without_slow_libraries(tmp_path):
    runs = [["vop", "meanP"], ["vop-f+c", "meanP"], ["bias", "meanP"], ["vop-f+p", "seqTransf"]]
    folders = []
    for method, head in runs:
        folders.append(str(tmp_path / f"{method}-{head}"))
        create(method, "mini", head=head, num_frames=4).save_pretrained(folders[-1])
    assert run(CODE, "mini", *folders) == [["zero-shot", "meanP"], *runs]


def test_slow_libraries_are_noticed():
    assert "transformers" in run(f"import transformers\n{CODE}", "mini")[0]
