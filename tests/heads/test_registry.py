"""Classes that go by a name."""

from __future__ import annotations

import pytest

from vop.errors import UsageError
from vop.utils.registry import Registry


class Plain:
    def __init__(self, sizes, *, frames=12, depth=1):
        self.made_of = (sizes, frames, depth)


class Tall(Plain):
    def __init__(self, sizes, *, height=2, **settings):
        super().__init__(sizes, **settings)
        self.height = height + 0


HERE = {"plain": f"{__name__}:Plain", "tall": f"{__name__}:Tall"}


def test_settings_are_the_keyword_only_arguments_of_all_bases():
    registry = Registry("thing", HERE, given=["frames"])
    assert registry.settings_of("tall") == {"depth": 1, "height": 2}
    tall = registry.create("tall", "sizes", frames=3, depth=5)
    assert tall.made_of == ("sizes", 3, 5)
    assert tall.settings == {"depth": 5, "height": 2}
    assert Registry("thing", HERE).create("plain", "sizes").settings == {"frames": 12, "depth": 1}


def test_an_unlisted_class_opens_and_is_not_offered():
    registry = Registry("thing", {"plain": HERE["plain"]}, unlisted={"tall": HERE["tall"]})
    assert registry.find("tall") is Tall
    with pytest.raises(UsageError, match="^unknown thing 'tal': known: plain$"):
        registry.find("tal")


def test_a_name_may_be_added_later():
    classes = {}
    registry = Registry("thing", classes)
    classes["plain"] = HERE["plain"]
    assert registry.find("plain") is Plain


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"hight": 3}, "unknown setting of tall 'hight': did you mean height"),
        ({"height": "three"}, "a setting of the thing tall is of the wrong type: {'height': 'three'}"),
    ],
)
def test_wrong_settings_are_named(settings, says):
    with pytest.raises(UsageError, match=says):
        Registry("thing", HERE).create("tall", "sizes", **settings)
