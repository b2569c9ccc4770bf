"""Names that are built in, names that packages add, and paths of classes."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import pytest

from vop.errors import UsageError, VopError
from vop.utils.registry import ClassRegistry, Registry


class Plain:
    def __init__(self, sizes, *, frames=12, depth=1):
        self.made_of = (sizes, frames, depth)

    def parameters(self):
        return iter(())

    def named_buffers(self):
        return iter(())

    def state_dict(self):
        return {}


class Tall(Plain):
    def __init__(self, sizes, *, height=2, **settings):
        super().__init__(sizes, **settings)
        self.height = height + 0


class Needy(Plain):
    def __init__(self, sizes, *, depth, **settings):
        super().__init__(sizes, depth=depth, **settings)


HERE = {"plain": f"{__name__}:Plain", "tall": f"{__name__}:Tall", "needy": f"{__name__}:Needy"}


def things(classes=HERE, **options):
    return ClassRegistry("thing", classes, group="vop.things", base=HERE["plain"], **options)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package with this module text and these entry points."""
    installed = []

    def install(package: str, text: str = "", **points: str) -> Path:
        site = tmp_path / package
        info = site / f"{package}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (info / "top_level.txt").write_text(f"{package}\n")
        lines = [f"{name} = {target}" for name, target in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[vop.things]", *lines, ""]))
        (site / f"{package}.py").write_text(text)
        monkeypatch.syspath_prepend(site)
        installed.append(package)
        return site

    yield install
    for package in installed:
        sys.modules.pop(package, None)


GOOD = f"from {__name__} import Plain\n\n\nclass Short(Plain):\n    pass\n"


class TestSettings:
    def test_settings_are_keyword_only_arguments_of_all_bases(self):
        registry = things(given=["frames"])
        assert registry.settings_of("tall") == {"depth": 1, "height": 2}
        tall = registry.create("tall", "sizes", frames=3, depth=5)
        assert tall.made_of == ("sizes", 3, 5)
        assert tall.settings == {"depth": 5, "height": 2}
        assert things().create("plain", "sizes").settings == {"frames": 12, "depth": 1}

    def test_an_unknown_setting_is_named_with_the_nearest(self):
        with pytest.raises(UsageError, match="the thing tall has no setting 'hight': did you mean height"):
            things().create("tall", "sizes", hight=3)

    def test_a_setting_without_a_default_is_required(self):
        with pytest.raises(UsageError, match="the thing needy needs the setting depth"):
            things().create("needy", "sizes")
        assert things().create("needy", "sizes", depth=4).settings["depth"] == 4

    def test_errors_of_a_constructor_are_raised_unchanged(self):
        with pytest.raises(TypeError, match="can only concatenate str") as caught:
            things().create("tall", "sizes", height="three")
        assert traceback.extract_tb(caught.tb)[-1].line == "self.height = height + 0"


class TestNames:
    def test_an_unlisted_class_is_found_but_not_suggested(self):
        registry = things({"plain": HERE["plain"]}, unlisted={"tall": HERE["tall"]})
        assert registry.find("tall") is Tall
        with pytest.raises(UsageError, match="^unknown thing 'tal': known: plain$"):
            registry.find("tal")

    def test_names_can_be_added_later(self):
        classes = {}
        registry = things(classes)
        classes["plain"] = HERE["plain"]
        assert registry.find("plain") is Plain


class TestPackages:
    def test_a_package_adds_a_name(self, install):
        install("adder", GOOD, short="adder:Short")
        registry = things()
        assert registry.names() == ["plain", "tall", "needy", "short"]
        assert "adder" not in sys.modules
        assert registry.find("short").__mro__[1] is Plain
        assert registry.package("short") == "adder 1.2"
        assert registry.package("plain") is None

    def test_a_built_in_name_wins(self, install):
        install("usurper", GOOD, plain="usurper:Short")
        assert things().find("plain") is Plain
        assert things().names() == ["plain", "tall", "needy"]

    def test_two_packages_with_the_same_name_are_refused(self, install):
        install("first_one", GOOD, short="first_one:Short")
        install("second_one", GOOD, short="second_one:Short")
        with pytest.raises(UsageError, match=r"'short' is added by first_one 1\.2 and by second_one 1\.2"):
            things().find("short")
        assert things().find("first_one:Short").__name__ == "Short"

    def test_a_broken_package_affects_only_its_own_name(self, install):
        install("broken", "1 / 0\n", crack="broken:Crack")
        install("whole", GOOD, short="whole:Short")
        assert things().find("short").__name__ == "Short"
        with pytest.raises(ZeroDivisionError) as caught:
            things().find("crack")
        assert traceback.extract_tb(caught.tb)[-1].line == "1 / 0"
        assert "thing 'crack' of broken 1.2" in caught.value.__notes__[0]

    def test_classes_of_another_type_are_refused(self, install):
        install("odd", "class Odd:\n    pass\n", odd="odd:Odd")
        with pytest.raises(UsageError, match=rf"'odd' is .*Odd.*a class that extends {__name__}\.Plain"):
            things().find("odd")
        install("text", "", odd_text="text")
        with pytest.raises(UsageError, match="'odd_text' is a module, which cannot be called"):
            Registry("thing", {}, group="vop.things").find("odd_text")

    def test_the_error_for_a_missing_package_names_it(self, install):
        things().check_installed("plain", "vop 0")
        with pytest.raises(VopError, match=r"'short' came from adder 1\.2, which is not installed.*pip install adder"):
            things().check_installed("short", "adder 1.2")
        with pytest.raises(VopError, match=r"module 'adder' .*it came from adder 1\.2"):
            things().check_installed("adder:Short", "adder 1.2")
        install("adder", GOOD, short="adder:Short")
        things().check_installed("short", "adder 1.2")
        things().check_installed("adder:Short", "adder 1.2")


class TestPaths:
    def test_a_class_is_found_by_its_path(self, install):
        install("local", GOOD)
        assert things().find("local:Short").__name__ == "Short"
        assert things().package("local:Short") == "local 1.2"

    def test_a_module_outside_any_package_is_named(self, tmp_path, monkeypatch):
        (tmp_path / "loose_module.py").write_text(GOOD)
        monkeypatch.syspath_prepend(tmp_path)
        assert things().package("loose_module:Short") == "the module loose_module"

    @pytest.mark.parametrize(
        ("path", "says"),
        [
            ("no_such_package.part:Short", "module 'no_such_package' .*PYTHONPATH"),
            ("local:Shirt", "local: unknown thing 'Shirt': did you mean Short"),
            ("local/file.py:Short", "write package.module:Class"),
            ("local:", "write package.module:Class"),
            ("os:system", "'os:system' is <built-in function system>; it must be a class"),
        ],
    )
    def test_wrong_paths_are_refused(self, install, path, says):
        install("local", GOOD)
        with pytest.raises(UsageError, match=says):
            things().find(path)

    def test_an_import_error_in_the_module_is_raised_unchanged(self, install):
        install("wanting", "import no_such_library\n")
        with pytest.raises(ModuleNotFoundError, match="no_such_library"):
            things().find("wanting:Short")
