"""Invalid filters, and SQL injection."""

from __future__ import annotations

import numpy as np
import pytest

from search.libraries import SIZE, a_file, make_library
from vop.errors import UsageError
from vop.search.filters import Filters, quoted

COLUMNS = ["author", "stars"]
ATTACKS = [
    "' OR '1'='1",
    "x') OR ('1'='1",
    "'; DROP TABLE segments_0; --",
    "\\' OR 1=1 --",
    "%' OR name LIKE '%",
    "x' UNION SELECT * FROM failures --",
    "` = '' OR 1=1 OR `x",
    "\x00' OR 1=1",
]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    files = [a_file(f"/v/{name}.mp4", metadata={"author": "bob", "stars": "4"}) for name in ("a", "b", "it's")]
    return make_library(tmp_path_factory.mktemp("refused") / "library", files, columns=COLUMNS)


def search(library, **filters):
    return library.search(np.eye(SIZE, dtype=np.float32)[0], k=10, filters=Filters(**filters))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"min_seconds": -0.5}, r"min_seconds is -0\.5"),
        ({"min_seconds": float("nan")}, "min_seconds is nan"),
        ({"max_seconds": float("inf")}, "max_seconds is inf"),
        ({"after": "yesterday"}, "after is 'yesterday'; write a date as 2024-07-01"),
        ({"after": "2024-13-01"}, "after is '2024-13-01'"),
        ({"after": "2024-13"}, "after is '2024-13'; write a date as .*2024-07 or 2024"),
        ({"after": "0000"}, "after is '0000'"),
        ({"before": "202"}, "before is '202'"),
        ({"before": "2024-7"}, "before is '2024-7'"),
        ({"before": "٢٠٢٤"}, "before is '٢٠٢٤'"),
        ({"before": "2024-07-01' OR 1=1"}, 'before is "2024-07-01\' OR 1=1"'),
        ({"before": " "}, "before is ' '"),
        ({"after": "0001-01-01T00:00+05:00"}, r"after is '0001-01-01T00:00\+05:00'"),  # before year 1 in UTC
        ({"before": "9999-12-31T23:00-05:00"}, "before is '9999-12-31T23:00-05:00'"),
        ({"where": ["author"]}, "the condition 'author' is not COLUMN"),
        ({"where": [""]}, "the condition '' is not"),
        ({"where": ["=bob"]}, "the condition '=bob' is not"),
        ({"where": ["author=bob", " "]}, "the condition ' ' is not"),
        ({"where": ["autor=bob"]}, "unknown column 'autor': did you mean author"),
        ({"where": ["path=/v/a.mp4"]}, "unknown column 'path'.*known: author, stars"),
        ({"where": ["about_author=bob"]}, "unknown column 'about_author'"),
        ({"where": ["author` OR 1=1 OR `author=bob"]}, "unknown column 'author` OR 1'"),
        ({"folder": "\udcff"}, r"'/\\udcff/' is not valid Unicode"),
        ({"folder": "é\udcff"}, r"'/é\\udcff/' is not valid Unicode"),
        ({"name": "caf\udce9"}, r"'%caf\\udce9%' is not valid Unicode"),
        ({"where": ["author=\udcff"]}, r"'\\udcff' is not valid Unicode"),
    ],
)
def test_invalid_filters_are_refused(library, filters, message):
    with pytest.raises(UsageError, match=message):
        search(library, **filters)


def test_conditions_need_a_library_with_metadata():
    with pytest.raises(UsageError, match="'author': the library has no metadata.*--metadata"):
        Filters(where=["author=bob"]).sql([])


@pytest.mark.parametrize("attack", ATTACKS)
def test_filter_texts_are_not_run_as_sql(library, attack):
    for filters in ({"folder": attack}, {"folder": f"/{attack}"}, {"name": attack}, {"where": [f"author={attack}"]}):
        assert search(library, **filters) == []
    assert search(library, where=[f"author~{attack}"]) == []
    assert len(search(library, where=[f"author!={attack}"])) == 3
    assert library.status().segments == 3


@pytest.mark.parametrize("attack", [*ATTACKS, "\\", "''", "\n", "😀"])
def test_quoted_texts_keep_their_value(library, attack):
    table = library.table
    assert table.count_rows(f"contains({quoted(f'<{attack}>')}, {quoted(attack)}) AND {quoted(attack)} <> ''") == 3
    assert table.count_rows(f"{quoted(attack)} = {quoted(attack + 'x')}") == 0


@pytest.mark.parametrize("attack", ATTACKS)
def test_written_paths_are_not_run_as_sql(tmp_path, attack):
    """A writer puts paths and ids into SQL conditions."""
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4"), a_file(f"/v/{attack}")])
    library.remove([attack])
    library.put_failures([], remove=[attack])
    assert library.status().videos == 2
    library.remove([f"/v/{attack}"])
    assert set(library.videos()) == {"/v/a.mp4"}
    assert len(library.rows_of([attack])) == 0
