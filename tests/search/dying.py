"""Work of shards that ends its process, or fails."""

from __future__ import annotations

import os

from vop.errors import VopError


def die(folder, number, *_):
    with open(folder / "deaths", "a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    os._exit(9)


def fail(folder, number, *_):
    raise VopError(f"worker node7: no space left for shard {number}")
