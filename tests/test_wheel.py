"""The wheel is complete: it is built, installed in a new environment, and indexes and searches videos there.

The environment is new except for the dependencies, which it shares with the tests. It records which files Python opens,
to prove that no file of this checkout is used.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from clips import write_film
from vop.version import VERSION

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("src", "pyproject.toml", "README.md", "LICENSE")
NOT_SOURCES = ("__pycache__", "*.egg-info")

# Python imports this module at each start in the environment, also in processes that vop starts.
WATCH = """
import os, sys

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path.startswith({root!r} + os.sep) and not path.startswith({prefix!r} + os.sep):
            log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(log, os.fsencode(path) + b"\\n")
            os.close(log)

sys.addaudithook(watch)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with vop from the wheel, and a folder to work in."""

    programs: Path
    work: Path
    log: Path

    def run(self, program: str, *arguments: str, **variables: str) -> str:
        """Run a program and return its standard output; fails the test if the program fails."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV", "VOP_"))}
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(
            command, env=clean | variables, cwd=self.work, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def opened(self) -> list[str]:
        """Files of the checkout that were opened since the last call."""
        found = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return sorted(set(found))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a source distribution, as it would be published."""
    folder = tmp_path_factory.mktemp("sources")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        else:
            shutil.copy(ROOT / name, folder)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(build, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Environment:
    folder = tmp_path_factory.mktemp("elsewhere").resolve()
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    programs = folder / "venv" / "bin"
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    # The dependencies come after what was installed, and an editable vop among them has no effect.
    site_packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "venv")}))
    dependencies = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (site_packages / "dependencies.pth").write_text("\n".join(sorted(dependencies)) + "\n")
    log = folder / "opened.txt"
    watch = WATCH.format(root=str(ROOT), prefix=str(Path(sys.prefix).resolve()), log=str(log))
    (site_packages / "sitecustomize.py").write_text(watch)
    (folder / "work").mkdir()
    return Environment(programs, folder / "work", log)


def test_the_wheel_has_every_file_of_the_package(wheel):
    package = ROOT / "src" / "vop"
    files = [path for path in package.rglob("*") if path.is_file()]
    wanted = {path.relative_to(package.parent).as_posix() for path in files if path.suffix != ".pyc"}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("vop/")}
    assert packed == wanted
    kinds = {Path(name).suffix for name in packed} | {Path(name).name for name in packed}
    assert kinds >= {".safetensors", ".csv", ".yaml", ".html", ".js", "py.typed", "tokenizer.json"}


def test_only_the_package_and_its_metadata_are_installed(wheel):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"vop", f"vop-{VERSION}.dist-info"}


def test_every_module_is_imported_from_the_wheel(environment):
    code = """
import importlib, pkgutil, vop
names = [module.name for module in pkgutil.walk_packages(vop.__path__, "vop.") if not module.name.endswith("__main__")]
for name in names: importlib.import_module(name)
print(len(names), vop.__version__, vop.__file__)
"""
    number, version, file = environment.run("python", "-c", code).split()
    modules = [path for path in (ROOT / "src" / "vop").rglob("*.py") if path.name not in ("__init__.py", "__main__.py")]
    assert int(number) > len(modules)  # and the packages
    assert version == VERSION
    assert Path(file).is_relative_to(environment.programs.parent)
    assert environment.opened() == []


def test_files_of_the_checkout_are_noticed(environment):
    environment.run("python", "-c", "import vop.version", PYTHONPATH=str(ROOT / "src"))
    assert str(ROOT / "src" / "vop" / "__init__.py") in {
        str(Path(path).parent.parent / "__init__.py") if path.endswith(".pyc") else path
        for path in environment.opened()
    }


def test_videos_are_indexed_and_found(environment):
    write_film(environment.work, "h264.mp4", seconds=2)
    report = json.loads(environment.run("vop", "index", "library", "h264.mp4", "--model", "mini", "--json"))
    assert (report["added"], report["failures"]) == (1, [])
    found = json.loads(environment.run("vop", "search", "library", "a dog runs", "--json"))
    assert [Path(result["path"]).name for result in found["results"]] == ["h264.mp4"]
    assert environment.opened() == []


@pytest.mark.release
def test_the_demo_runs(environment):
    found = json.loads(environment.run("vop", "demo", "--json"))
    at_rank_1 = {name: report["t2v"]["r1"] for name, report in found["reports"].items()}
    assert at_rank_1["vop-f+p"] > at_rank_1["zero-shot"] > 20
    assert environment.opened() == []
