"""Update a library from the videos on disk, check it and re-embed it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vop.search.sync.commands import change_excluded as change_excluded
    from vop.search.sync.commands import forget as forget
    from vop.search.sync.commands import index as index
    from vop.search.sync.commands import preview as preview
    from vop.search.sync.commands import remembered_folders as remembered_folders
    from vop.search.sync.commands import restore as restore
    from vop.search.sync.integrity import check as check
    from vop.search.sync.reembedding import reembed as reembed

# Imported at the first access, so that reading a library does not import PyTorch.
_MODULES = {
    "change_excluded": "commands",
    "check": "integrity",
    "forget": "commands",
    "index": "commands",
    "preview": "commands",
    "reembed": "reembedding",
    "remembered_folders": "commands",
    "restore": "commands",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
