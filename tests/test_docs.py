"""The documentation is correct: its commands parse, its Python runs, its tables and links are right."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import vop
from vop import heads, methods
from vop.backbones import find_sizes
from vop.backbones.describe import known_backbones
from vop.backbones.source import FAMILIES
from vop.cli import build_parser
from vop.cli.common import parse_settings
from vop.cli.compare import ENTRIES
from vop.datasets.readers import READERS
from vop.datasets.types import Split, Video
from vop.experiments.plan import ABLATIONS, Search, arms_of
from vop.methods import METHODS, settings_of
from vop.training.recipe import FIELDS, Recipe, TrainingConfig, read_config

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), DOCS / "standing" / "standing.md"]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
FOREIGN = {
    "cp",
    "hf",
    "loginctl",
    "mkdir",
    "pre-commit",
    "systemctl",
    "tensorboard",
}  # programs whose options are not ours to check


def name_of(path: Path) -> str:
    return path.name


def blocks(page: Path, *kinds: str) -> list[str]:
    """The code blocks of a page that are marked with one of `kinds`."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [text for kind, text in found if kind in kinds]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if shlex.split(line, comments=True)]


def commands() -> Iterator[tuple[str, str]]:
    """(file, command) of every command in a page's shell blocks and in a recipe's head."""
    for page in PAGES:
        for block in blocks(page, "sh", "bash", "shell", "console"):
            yield from ((page.name, line) for line in shell_lines(block))
    for recipe in RECIPES:
        for line in recipe.read_text(encoding="utf-8").splitlines():
            if not line.startswith("# vop "):
                break
            yield recipe.name, line.removeprefix("# ")


COMMANDS = list(commands())


def rows(page: Path, *, under: str) -> dict[str, str]:
    """First and second cell of the first table after a line that starts with `under`."""
    text = f"\n{page.read_text(encoding='utf-8')}".partition(f"\n{under}")[2]
    table = re.search(r"(^\|.*\n)+", text, re.MULTILINE)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")] for line in table]
    return {cell[1]: cell[2] for cell in cells}


@pytest.fixture
def with_example(monkeypatch, tmp_path) -> Iterator[str]:
    """Saves the method that methods.md adds; yields its name."""
    source = next(block for block in blocks(DOCS / "methods.md", "python") if "class FrameWeights" in block)
    (tmp_path / "frame_weights.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "frame_weights", raising=False)
    yield "frame_weights:FrameWeights"
    sys.modules.pop("frame_weights", None)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, tiny_folder) -> Path:
    """A folder with the files in the pages' examples: a run, data, videos, a library, a picture, captions."""
    from vop.benchmarks.videos import encode
    from vop.models.pretrained import create
    from vop.search.sync import index

    folder = tmp_path_factory.mktemp("workplace")
    levels = np.arange(0, 240, 40, dtype=np.uint8)  # six frames, from dark to bright
    frames = np.broadcast_to(levels[:, None, None, None], (6, 48, 64, 3))
    encode(frames, folder / "a.mp4")
    encode(frames[::-1], folder / "b.webm")  # a container is known by its content
    for table in ("train.csv", "test.csv"):
        (folder / table).write_text("video,caption\na.mp4,it grows bright\nb.webm,it grows dark\n")
    create("vop", str(tiny_folder), num_frames=2).save_pretrained(folder / "runs" / "cooking")
    (folder / "holidays").mkdir()
    encode(np.repeat(frames, 8, axis=0), folder / "holidays" / "lake.mp4")
    Image.fromarray(np.ascontiguousarray(frames[3])).save(folder / "sunset.jpg")
    (folder / "captions.txt").write_text("it grows bright\nit grows dark\n")
    index(folder / "library", [folder / "a.mp4", folder / "b.webm"], model=str(folder / "runs" / "cooking"))
    return folder


def parse(words: list[str]) -> argparse.Namespace:
    """Arguments of a `vop` command; fails the test where the parser refuses them."""
    try:
        return build_parser().parse_args(words)
    except SystemExit:
        pytest.fail(f"vop {shlex.join(words)} is refused")


def check_settings(method: str, settings: dict, head: str | None = None) -> None:
    """The method takes these settings on ViT-B/32, and the head those that are called head.NAME."""
    of_head = {name.removeprefix("head."): value for name, value in settings.items() if name.startswith("head.")}
    of_method = {name: value for name, value in settings.items() if not name.startswith("head.")}
    with torch.device("meta"):
        methods.create(method, find_sizes("ViT-B/32"), **of_method)
        heads.create(head or heads.MEAN, find_sizes("ViT-B/32"), **of_head)


def documented_recipe(name: str) -> TrainingConfig:
    """A recipe by its name, or by its path from the top of the repository."""
    return read_config(ROOT / name if name.endswith(".yaml") else name)


def check_vop(words: list[str]) -> None:
    arguments = parse(words)
    config = TrainingConfig()
    if getattr(arguments, "config", None):
        config = documented_recipe(arguments.config)
    if hasattr(arguments, "recipe"):  # of a comparison
        if getattr(arguments, "merge", None):
            return
        for recipe in arguments.recipe:
            assert documented_recipe(recipe).data
        methods_named = getattr(arguments, "methods", None)
        assert arms_of(methods_named.split(",") if methods_named else list(METHODS))
        assert set(getattr(arguments, "ablations", [])) <= ABLATIONS.keys()
    elif hasattr(arguments, "settings"):
        named = arguments.method if isinstance(arguments.method, list) else [arguments.method]
        settings = {**config.settings, **parse_settings(arguments.settings)}
        for method in filter(None, [*named, config.method]):
            check_settings(method, settings, getattr(arguments, "head", None))


def check_launched(parser: argparse.ArgumentParser, words: list[str]) -> None:
    arguments = parser.parse_args(words)
    assert arguments.module
    assert arguments.training_script == "vop"
    check_vop(arguments.training_script_args)


def check_docker(words: list[str]) -> None:
    """A container of our image runs `vop serve` or another `vop` command."""
    if words[0] == "build":
        assert (ROOT / words[-1] / "Dockerfile").exists()
        return
    image = len(words) - words[::-1].index("vop") - 1  # where `vop` is the image, it stands last
    if "--entrypoint" in words:
        assert words[words.index("--entrypoint") + 1] == "vop"
        check_vop(words[image + 1 :])
    else:
        check_vop(["serve", *(words[image + 1 :] or ["/library", "--host", "0.0.0.0"])])


def make_targets() -> set[str]:
    return set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_pages_have_commands_and_examples():
    wanted = {"README.md", "data.md", "training.md", "evaluation.md", "methods.md", "search.md", "finding.md"}
    assert wanted <= {page.name for page in PAGES}
    assert len(RECIPES) >= 3
    files = {file for file, _ in COMMANDS}
    assert files >= wanted | {*map(name_of, RECIPES)}
    programs = {Path(shlex.split(command)[0]).name for _, command in COMMANDS}
    assert programs >= {"vop", "make", "accelerate"}


@pytest.mark.parametrize(("file", "command"), COMMANDS)
def test_commands_can_be_parsed(file, command, with_example):
    program, *words = shlex.split(command, comments=True)
    if Path(program).name == "vop":
        check_vop(words)
    elif program == "make":
        assert set(words) <= make_targets()
    elif program == "docker":
        check_docker(words)
    elif program == "accelerate":
        from accelerate.commands.launch import launch_command_parser

        check_launched(launch_command_parser(), words[1:])
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        check_launched(get_args_parser(), words)
    else:
        assert Path(program).name in FOREIGN, f"{file}: {program} is not a program that this test knows"


def inline_commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every command in the text that has more than a name."""
    for page in PAGES:
        for code in re.findall(r"`(vop [^`]+)`", prose(page)):
            command = " ".join(code.split())
            if len(command.split()) > 2:
                yield page.name, command


@pytest.mark.parametrize(("page", "command"), list(dict.fromkeys(inline_commands())))
def test_inline_commands_can_be_parsed(page, command, capsys):
    try:
        build_parser().parse_args(shlex.split(command)[1:])
    except SystemExit:
        assert "the following arguments are required" in capsys.readouterr().err


def option_strings(parser: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in parser._actions:
        found |= set(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            found |= set().union(*map(option_strings, action.choices.values()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_named_in_the_text_exist(page):
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(page))]
    ours = [
        word for code in inline if code.startswith(("--", "vop ")) for word in code.split() if word[:2] == "--" != word
    ]
    known = option_strings(build_parser())
    assert "--learning-rate" in known
    assert not [word for word in ours if word.partition("=")[0] not in known]


def test_ablations_use_settings_of_their_methods():
    found = re.findall(r"`(--method [^`]+)`", prose(DOCS / "methods.md"))
    assert len(found) >= 8
    for options in found:
        check_vop(["params", *shlex.split(options)])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    local = [target.partition("#")[0] for target in targets if not target.startswith(("http:", "https:", "#"))]
    assert local or page.name not in ("README.md", "training.md", "methods.md")
    assert not [target for target in local if not (page.parent / target).exists()]


def broken_site(folder: Path, page: str) -> subprocess.CompletedProcess:
    (folder / "index.md").write_text(page, encoding="utf-8")
    shutil.copy(DOCS / "conf.py", folder)
    return build_site(folder, folder / "_build")


def build_site(source: Path, out: Path) -> subprocess.CompletedProcess:
    """Build the site as `make docs` does."""
    (line,) = re.findall(r"-m sphinx (.*) docs docs/_build/html", (ROOT / "Makefile").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "sphinx", *shlex.split(line), "-q", str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_site_has_all_pages_and_public_names(tmp_path):
    done = build_site(DOCS, tmp_path / "html")
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert built >= {page.stem for page in DOCS.glob("*.md")} | {"quickstart"}
    reference = (tmp_path / "html" / "api.html").read_text(encoding="utf-8")
    assert not [name for name in vop.__all__ if f'id="vop.{name}"' not in reference]


@pytest.mark.slow
def test_broken_links_stop_the_build(tmp_path):
    links = ["[a](nowhere-1.md)", "[a](#nowhere-2)", "![a](nowhere-3.png)", "[a](../nowhere-4/)"]
    done = broken_site(tmp_path, "\n\n".join(["# A page", *links]) + "\n")
    assert done.returncode != 0
    warned = [line for line in done.stderr.splitlines() if "WARNING" in line]
    for number in range(1, 5):
        assert any(f"nowhere-{number}" in line for line in warned), done.stderr


def test_backbone_tables_match_the_command():
    page = DOCS / "backbones.md"
    families = {name.strip("`"): title for name, title in rows(page, under="## Families").items()}
    assert families == {name: FAMILIES.find(name).title for name in FAMILIES.built_in}
    text = page.read_text(encoding="utf-8")
    for one in known_backbones():
        (line,) = re.findall(rf"^\| `{re.escape(one['name'])}`.* \| `\w+` \|.*$", text, re.MULTILINE)
        shown = [cell.strip() for cell in line.split("|")][2:-1]
        numbers = [f"{one[key]:,}" for key in ("embed_dim", "image_size", "millions")]
        assert shown == [f"`{one['family']}`", one["methods"], *numbers, one["languages"], one["license"] or "–"]


def test_the_index_links_every_page():
    linked = set(re.findall(r"\]\(([\w./-]+)\)", prose(DOCS / "index.md")))
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md", "changelog.md", "contributing.md"}
    assert linked >= pages | {"quickstart.ipynb", "standing/standing.md", "../CONTRIBUTING.md"}


@pytest.mark.parametrize("page", [page for page in PAGES if "include" not in page.read_text()[:20]], ids=name_of)
def test_pages_start_with_a_title_and_prose(page):
    title, opening, *_ = page.read_text(encoding="utf-8").split("\n\n")
    assert title.startswith("# ")
    assert re.match(r"[A-Z`*\"](?!``)", opening)


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_recipes_fit_their_methods(recipe):
    config = read_config(recipe)
    assert all((config.data, config.method, config.settings))
    check_settings(config.method, config.settings)


def test_the_example_recipe_is_valid(tmp_path):
    (block,) = blocks(DOCS / "training.md", "yaml")
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    test_recipes_fit_their_methods(tmp_path / "recipe.yaml")


def test_the_example_experiment_is_valid(tmp_path):
    (block,) = blocks(DOCS / "comparing.md", "yaml")
    (tmp_path / "recipe.yaml").write_text(block, encoding="utf-8")
    entries = read_config(tmp_path / "recipe.yaml").experiment
    assert entries
    assert entries.keys() <= ENTRIES.keys()
    assert arms_of(entries["methods"])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_examples_run(page, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    names: dict = {"__name__": "example"}
    for block in blocks(page, "python"):
        if "import mteb\n" in block:  # downloads a benchmark; tests/evaluation/test_mteb_model.py runs a small one
            continue
        exec(compile(block, page.name, "exec"), names)
    if page.name == "evaluation.md":
        documented = {key for cell in rows(page, under="## JSON") for key in re.findall(r"`(\w+)`", cell)}
        assert documented == names["report"].to_dict().keys()
        assert names["metrics"].t2v.ranks.tolist() == [1, 2, 1]


def test_all_pages_with_python_are_tested():
    assert {page.name for page in PAGES if blocks(page, "python")} >= {"README.md", "data.md", "methods.md"}


def test_the_documented_method_trains_and_loads(with_example, workplace, tiny_folder, tmp_path):
    from vop.datasets.types import Dataset
    from vop.models.params import count_parameters
    from vop.models.pretrained import load
    from vop.training.job import train

    videos = tuple(Video(name, workplace / name) for name in ("a.mp4", "b.webm"))
    data = Dataset("two", {"train": Split("train", videos, ("it grows bright", "it grows dark"), (0, 1))})
    recipe = Recipe(epochs=2, validation=0, workers=0, precision="fp32", learning_rate=0.1)
    settings = {"num_frames": 3, "sharpness": 2.0}
    tuned = train(
        data, out=tmp_path / "run", method=with_example, backbone=str(tiny_folder), recipe=recipe, settings=settings
    ).model
    assert tuned.trainable()["method.weights"].abs().max() > 0
    paths = [video.path for video in videos]
    torch.testing.assert_close(load(tmp_path / "run").encode_video(paths), tuned.encode_video(paths), rtol=0, atol=0)
    assert load(tmp_path / "run", num_frames=5).encode_video(paths).shape == tuned.encode_video(paths).shape
    assert count_parameters(find_sizes("ViT-B/32"), only=[with_example])[with_example].true_count == 12


def test_the_table_of_recipe_fields_is_complete():
    documented = {name.strip("`"): default for name, default in rows(DOCS / "training.md", under="## Recipe").items()}
    assert documented == {name: str(field.default) for name, field in FIELDS.items()}


def test_the_table_of_settings_is_complete():
    documented = rows(DOCS / "methods.md", under="## Settings")
    known: dict = {}
    for name in METHODS:
        known |= settings_of(name)
    known = json.loads(json.dumps(known))  # as a run saves them: a tuple is a list
    assert {name.strip("`"): yaml.safe_load(default) for name, default in documented.items()} == known


def test_the_table_of_recipe_entries_is_complete():
    documented = rows(DOCS / "comparing.md", under="## In a recipe")
    assert {name.strip("`") for name in documented} == ENTRIES.keys()
    defaults = {"trials": Search().trials, "trial_epochs": Search().epochs, "trial_steps": Search().steps}
    assert {name: int(documented[f"`{name}`"]) for name in defaults} == defaults
    assert [float(x) for x in re.findall(r"[\de-]+", documented["`rate_range`"])] == [Search().low, Search().high]


def test_every_ablation_is_described():
    assert {name.strip("`") for name in rows(DOCS / "comparing.md", under="## Ablations")} == ABLATIONS.keys()


def test_every_head_is_described():
    assert {name.strip("`") for name in rows(DOCS / "methods.md", under="## Heads")} == heads.HEADS.keys()


def test_every_method_and_data_set_is_described():
    assert {name.strip("`") for name in rows(DOCS / "methods.md", under="# Methods")} == METHODS.keys()
    specs = " ".join(rows(DOCS / "data.md", under="# Data"))
    assert not [name for name in READERS if f"`{name}:DIR`" not in specs]
