"""`import vop`: every public name exists, and nothing is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import vop

HEAVY = {"torch", "numpy", "pyarrow", "lancedb", "pydantic", "transformers", "fastapi", "av", "PIL", "huggingface_hub"}


def in_a_new_python(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("name", vop.__all__)
def test_public_names_are_callable_and_documented(name):
    thing = getattr(vop, name)
    assert callable(thing)
    assert thing.__module__.startswith("vop.")
    assert thing.__doc__


def test_all_public_names_are_listed():
    assert vop.__all__ == sorted(vop.__all__)
    assert {"Library", "Moment", "SegmentationConfig", "evaluate", "load", "probe", "train"} <= {*vop.__all__}
    assert {*vop.__all__, "__version__"} <= {*dir(vop)}


def test_private_names_are_not_exposed():
    with pytest.raises(AttributeError, match="'encode'"):
        vop.encode  # noqa: B018


def test_import_vop_is_light():
    loaded = in_a_new_python("import sys, vop; dir(vop); print(*sys.modules)")
    assert not HEAVY & {*loaded}
    assert {name for name in loaded if name.startswith("vop")} == {"vop", "vop.version"}


@pytest.mark.parametrize("name", ["Moment", "SegmentationConfig", "LibraryStatus", "VopError"])
def test_importing_small_types_is_light(name):
    loaded = in_a_new_python(f"import sys, vop; vop.{name}; print(*sys.modules)")
    assert not HEAVY & {*loaded}


def test_library_is_imported_without_pytorch(tmp_path):
    loaded = in_a_new_python("import sys, vop; vop.Library; print(*sys.modules)")
    assert "lancedb" not in loaded
    assert not {"torch", "transformers", "av", "fastapi"} & {*loaded}
