"""The filter by place, against the distance on a sphere."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from search.filtered import found
from search.libraries import a_file, make_library
from vop.errors import UsageError
from vop.search.filters import EARTH_KM, PLACE, Filters
from vop.video.places import Place

PLACES = {
    "vienna": (48.2082, 16.3738),
    "graz": (47.0707, 15.4395),
    "fiji": (-16.5, 179.9),
    "fiji-east": (-16.5, -179.9),
    "pole": (90.0, 0.0),
    "near-pole": (89.95, 120.0),
    "across-pole": (89.95, -60.0),
    "antipode": (-48.2082, -163.6262),
}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    files = [
        replace(a_file(f"/v/{name}.mp4"), place=Place(latitude=latitude, longitude=longitude))
        for name, (latitude, longitude) in PLACES.items()
    ]
    return make_library(tmp_path_factory.mktemp("near") / "library", [*files, a_file("/v/unknown.mp4")])


def names(library, near: str) -> set[str]:
    return {path.removeprefix("/v/").removesuffix(".mp4") for path in found(library, Filters(near=near))}


def distance_km(one: tuple[float, float], other: tuple[float, float]) -> float:
    """By the law of cosines, in vectors."""
    (x, y, z), (u, v, w) = (
        (math.cos(a) * math.cos(b), math.cos(a) * math.sin(b), math.sin(a))
        for a, b in (map(math.radians, place) for place in (one, other))
    )
    return EARTH_KM * math.acos(max(-1.0, min(1.0, x * u + y * v + z * w)))


@pytest.mark.parametrize(
    "centre", [(48.2, 16.4), (-16.5, 180), (-16.5, -180), (90, 77), (-90, 0), (0, 0), (89.95, 120)]
)
@pytest.mark.parametrize("km", [0, 5, 12, 25, 200, 5000, 15_000, 20_000, 20_020, 1e9])
def test_videos_within_the_distance_are_found(library, centre, km):
    wanted = {name for name, place in PLACES.items() if distance_km(centre, place) <= km}
    assert names(library, f"{centre[0]},{centre[1]},{km}") == wanted


def test_the_date_line_and_the_pole_are_no_borders(library):
    assert names(library, "-16.5,179.95,25") == {"fiji", "fiji-east"}
    assert names(library, "89.99,-60,20") == {"pole", "near-pole", "across-pole"}


def test_moments_have_their_place(library):
    by_name = {moment.path: moment.place for moment in library.browse().videos}
    assert by_name["/v/vienna.mp4"] == Place(latitude=48.2082, longitude=16.3738)
    assert by_name["/v/unknown.mp4"] is None


def test_an_older_library_has_no_places(tmp_path):
    library = make_library(tmp_path / "library", [a_file("/v/a.mp4")])
    library.table.drop_columns([*PLACE])
    assert found(library, Filters(near="48.2,16.4,99999")) == set()
    assert found(library, Filters()) == {"/v/a.mp4"}
    library.add_columns(())
    assert found(library, Filters(near="48.2,16.4,99999")) == set()
    assert library.browse().videos[0].place is None


@pytest.mark.parametrize(
    "near", ["here", "48.2,16.4", "48.2,16.4,5,6", "91,0,1", "0,181,1", "0,0,-1", "nan,0,1", "0,0,inf"]
)
def test_other_values_are_refused(near):
    with pytest.raises(UsageError, match=r"near is '.*'; write LATITUDE,LONGITUDE,KM"):
        Filters(near=near).check([])
