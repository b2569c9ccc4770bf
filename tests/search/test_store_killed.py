"""Libraries that another process writes to, also one that is killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import search.libraries
from search.libraries import a_file, make_library, rows_of, unit_vectors
from vop.search.store import Store
from vop.search.sync.lock import library_lock

TESTS = Path(search.libraries.__file__).parents[1]  # where the process finds search.libraries
SEGMENTS = 5

WRITER = f"""
import sys
from itertools import count
from search.libraries import *
from vop.search.sync.lock import library_lock
with library_lock(Path(sys.argv[1])):
    library = Store.open(sys.argv[1])
    for number in count():
        file = a_file(f"/v/{{number // 2}}.mp4", content=f"version {{number}}")
        library.put(rows_of(library, file, unit_vectors({SEGMENTS}, seed=number)), replacing=[str(file.path)])
        print(number, flush=True)
"""


@pytest.mark.parametrize("puts", [3, 40])
def test_a_killed_writer_leaves_whole_videos_only(tmp_path, puts):
    library = make_library(tmp_path / "library", [])
    command = [sys.executable, "-c", WRITER, library.path]
    writer = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for number in range(puts):
        assert writer.stdout.readline(), writer.stderr.read()
        if number % 2:  # the last version at this path; it is visible at once
            found = library.search(unit_vectors(SEGMENTS, seed=number)[3], k=1)[0]
            assert (found.path, found.score) == (f"/v/{number // 2}.mp4", pytest.approx(1))
    writer.send_signal(signal.SIGKILL)
    written = puts + len(writer.stdout.read().split())  # includes lines that were buffered
    writer.communicate(timeout=20)
    places = defaultdict(list)
    for row in Store.open(library.path).table.search().select(["path", "video", "place"]).to_arrow().to_pylist():
        places[row["path"], row["video"]].append(row["place"])
    assert len(places) in ((written + 1) // 2, (written + 2) // 2)  # perhaps one more than was printed
    assert len({path for path, _ in places}) == len(places)
    assert all(sorted(own) == list(range(SEGMENTS)) for own in places.values())
    with library_lock(library.path, waiting=lambda: pytest.fail("the killed process holds the lock")):
        library.put(rows_of(library, a_file("/v/0.mp4"), unit_vectors(2)), replacing=["/v/0.mp4"])
    assert len(library.search(unit_vectors(2)[1], k=1000)) == len(places)
    assert library.search(unit_vectors(2)[1])[0].path == "/v/0.mp4"


def test_writes_of_another_store_are_visible_at_once(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/old.mp4")])
    other = Store.open(library.path)
    query = unit_vectors(2, seed=9)[1]
    for _ in range(10):
        assert [moment.path for moment in library.search(query)] == ["/v/old.mp4"]
        other.put(rows_of(other, a_file("/v/new.mp4"), unit_vectors(2, seed=9)))
        assert [moment.path for moment in library.search(query)] == ["/v/new.mp4", "/v/old.mp4"]
        assert set(library.videos()) == {"/v/new.mp4", "/v/old.mp4"}
        other.remove(["/v/new.mp4"])
    assert library.status().videos == 1
