"""pyproject.toml declares what the code imports, and the extras that messages and pages name."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slow import SLOW_FILES
from test_docs import PAGES, ROOT, make_targets
from test_wheel import SOURCES
from vop.cli import build_parser
from vop.version import VERSION

SOURCE = ROOT / "src" / "vop"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_DEVELOPERS = {"bench", "dev", "docs", "test"}
# Ray is large; open_clip requires torchvision, which must match the build of PyTorch; mteb requires many libraries.
APART = {"cluster", "mteb", "open-clip"}
# Libraries that another library of ours imports.
# Compared with in tests and benchmarks, if installed; `tvr` is in a checkout of a released method.
BY_HAND = {"datasets", "decord", "mteb", "open_clip", "ray", "timm", "torchcodec", "tvr"}
NOT_IMPORTED = {"jinja2", "protobuf", "sentencepiece", "tensorboard"}


def distributions(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def resolved(extra: str) -> set[str]:
    """The distributions of an extra, including the extras that it names."""
    found: set[str] = set()
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        ours = requirement.extras if requirement.name == PROJECT["name"] else ()
        found |= {name for other in ours for name in resolved(other)} or distributions([text])
    return found


REQUIRED = distributions(PROJECT["dependencies"])
OPTIONAL = resolved("all")


@cache
def owners() -> dict[str, list[str]]:
    return {"lance": ["pylance"], "ray": ["ray"]} | packages_distributions()  # also where they are not installed


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """(top module, whether importing `path` imports it) of every import statement of libraries."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    delayed: set[int] = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if typing_only or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            delayed |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names = [node.module]
        for top in {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"vop", "_typeshed"}:
            yield top, id(node) not in delayed


@cache
def imports_of_the_package() -> list[tuple[Path, str]]:
    return [(path, top) for path in sorted(SOURCE.rglob("*.py")) for top, _ in imports(path)]


def test_every_import_is_declared():
    declared = REQUIRED | OPTIONAL | set.union(*map(resolved, APART))
    undeclared = {
        f"{path.relative_to(SOURCE)}: {top}"
        for path, top in imports_of_the_package()
        if not {canonicalize_name(name) for name in owners().get(top, [top, f"{top}_torch"])} & declared
    }
    assert undeclared == set()


def test_every_import_of_the_tests_and_tools_is_declared():
    declared = REQUIRED | resolved("dev")
    own = {path.stem for path in (ROOT / "tests").rglob("*")} | {path.stem for path in (ROOT / "bench").iterdir()}
    paths = [path for folder in ("tests", "bench", "tools", "examples") for path in (ROOT / folder).rglob("*.py")]
    tops = {(path, top) for path in paths for top, _ in imports(path) if top not in own | {"tools"} | BY_HAND}
    undeclared = {
        (path, top) for path, top in tops if not {canonicalize_name(n) for n in owners().get(top, [])} & declared
    }
    assert undeclared == set()


def test_every_declared_library_is_imported():
    imported = {canonicalize_name(name) for _, top in imports_of_the_package() for name in owners().get(top, [])}
    assert (REQUIRED | OPTIONAL) - imported <= NOT_IMPORTED


def test_undeclared_imports_are_found(tmp_path):
    (tmp_path / "module.py").write_text("import numpy.linalg\nimport json\ndef f():\n    from yaml import load\n")
    assert sorted(imports(tmp_path / "module.py")) == [("numpy", True), ("yaml", False)]
    assert owners()["yaml"] == ["PyYAML"]


def test_every_extra_is_in_all_or_for_developers():
    extras = PROJECT["optional-dependencies"].keys()
    parts = {name for text in PROJECT["optional-dependencies"]["all"] for name in Requirement(text).extras}
    assert extras == parts | FOR_DEVELOPERS | APART | {"all"}
    assert resolved("dev") >= set.union(*map(resolved, extras - {"dev"} - APART))


def test_constraints_pin_every_direct_dependency():
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if not line.startswith("#")
    }
    assert pinned >= REQUIRED | resolved("dev")


@pytest.mark.parametrize("path", [*PAGES, *sorted(SOURCE.rglob("*.py"))], ids=lambda path: str(path.relative_to(ROOT)))
def test_extras_in_messages_exist(path):
    named = re.findall(r"\bvop\[([\w,-]+)\]", path.read_text(encoding="utf-8"))
    extras = {extra for names in named for extra in names.split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()


def test_supported_pythons_have_classifiers():
    versions = [name.rpartition(" ")[2] for name in PROJECT["classifiers"] if ":: 3." in name]
    assert versions == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={versions[0]}"


# -- Which tests are slow


@pytest.mark.parametrize("pattern", SLOW_FILES)
def test_files_of_slow_tests_exist(pattern):
    assert list((ROOT / "tests").glob(pattern))


@pytest.mark.slow
def test_fast_tests_skip_slow_files():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--collect-only",
        "-m",
        "not slow",
        "tests/utils",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "tests/utils/test_files.py" in done.stdout
    assert "tests/utils/test_isolation.py" not in done.stdout


# -- Container, continuous integration, citation


def dockerfile() -> list[list[tuple[str, str]]]:
    """(instruction, arguments) of each stage of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    stages: list[list[tuple[str, str]]] = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, _, arguments = line.partition(" ")
            if instruction == "FROM":
                stages.append([])
            stages[-1].append((instruction, " ".join(arguments.split())))
    return stages


def test_the_container_is_slim_and_runs_without_privileges():
    build, last = dockerfile()
    assert build[0][1].endswith("-slim AS build")
    assert last[0][1] == build[0][1].removesuffix(" AS build")
    names = [name for name, _ in last]
    assert names.index("USER") < names.index("ENTRYPOINT")
    (user,) = (arguments for name, arguments in last if name == "USER")
    (created,) = (arguments for name, arguments in last if name == "RUN")
    assert f"useradd --create-home --uid 1000 {user}" in created
    assert ("COPY", "--from=build /opt/vop /opt/vop") in last


def test_the_container_copies_the_sources_of_the_wheel():
    build, _ = dockerfile()
    copied = {source for name, arguments in build if name == "COPY" for source in arguments.split()[:-1]}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert copied == {*SOURCES, "constraints.txt"}


def test_the_container_serves_a_library():
    _, last = dockerfile()
    entrypoint, command = (json.loads(arguments) for name, arguments in last if name in ("ENTRYPOINT", "CMD"))
    program, *words = entrypoint + command
    assert program in PROJECT["scripts"]
    arguments = build_parser().parse_args(words)
    assert (arguments.host, arguments.port) == ("0.0.0.0", int(dict(last)["EXPOSE"]))
    assert f"http://127.0.0.1:{arguments.port}/healthz" in dict(last)["HEALTHCHECK"]


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_github_files_are_valid_yaml(path):
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_continuous_integration_calls_targets_that_exist():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"]]
    targets = [target for step in steps if step.startswith("make ") for target in step.split()[1:]]
    assert set(targets) <= make_targets()
    assert set(targets) >= {"lint", "types", "test", "docs", "wheel"}
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {(row["os"].partition("-")[0], row["python"]) for row in tested} >= {
        ("ubuntu", "3.11"),
        ("ubuntu", "3.14"),
        ("macos", "3.14"),
    }


def test_versions_match():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == VERSION
    assert citation["license"] == PROJECT["license"]
    assert f"\n## {VERSION}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
