"""Work of shards that ends its process, or fails. As a program: `vop`, which is killed before its fourth commit."""

from __future__ import annotations

import os
import signal
import sys

from vop.errors import VopError

COMMITS = 3  # before the program is killed


def die(folder, number, *_):
    with open(folder / "deaths", "a", encoding="utf-8") as file:
        file.write(f"{number}\n")
    os._exit(9)


def fail(folder, number, *_):
    raise VopError(f"worker node7: no space left for shard {number}")


def main() -> None:
    from vop.cli import main as vop
    from vop.search.sharding import commands, plan
    from vop.search.sharding.fragments import Target

    commit, commits = Target.commit, []

    def commit_or_die(*arguments, **settings):
        if len(commits) == COMMITS:
            os.kill(os.getpid(), signal.SIGKILL)
        commits.append(1)
        commit(*arguments, **settings)

    Target.commit = commit_or_die  # type: ignore[method-assign]
    commands.PUBLISH_SECONDS = 0.0
    plan.LEAST_BYTES = 1  # small files in several shards for each worker
    sys.exit(vop(sys.argv[1:]))


if __name__ == "__main__":
    main()
