"""Which code computes: versions of libraries, and the commit of a checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

from vop.version import VERSION

_HERE = Path(__file__).resolve()


def library_versions() -> dict[str, str]:
    """The versions of vop, torch and transformers."""
    return {"vop": VERSION, "torch": version("torch"), "transformers": version("transformers")}


@cache
def source_commit() -> str | None:
    """The commit of the checkout that this package runs from, with "-dirty" behind it if its code was changed.

    None where it is installed from a wheel, or git is not there.
    """
    try:
        _git("ls-files", "--error-unmatch", _HERE.name)  # not a project whose environment the package lies in
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", str(_HERE.parents[1]))
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changed else commit


def _git(*words: str) -> str:
    command = ["git", "-C", str(_HERE.parent), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
