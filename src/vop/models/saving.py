"""Write a model's run, and publish it on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from vop import heads, methods
from vop.backbones import BUILT_IN, Backbone
from vop.backbones.source import REGISTRY as BACKBONES
from vop.heads.base import Head
from vop.methods.base import Method
from vop.models.card import render_card
from vop.models.run_folder import FORMAT, BackboneConfig, Card, HeadConfig, RunConfig, copy_backbone, write_run

_RESIZING = {"crop": "shorter side, {}, antialiased; centre crop", "squash": "both sides, {}, antialiased"}


def write(folder: Path, config: RunConfig, trained: Mapping[str, nn.Parameter], *, name: str | None = None) -> None:
    """Write a run: config.json, model.safetensors and a model card.

    Args:
        trained: the parameters to save, by name.
        name: the run's name on the hub, for the model card.
    """
    count = sum(parameter.numel() for parameter in trained.values())
    card = render_card(config, trained=count) if name is None else render_card(config, trained=count, name=name)
    write_run(folder, config, trained, card=card)


def run_config(
    folder: Path,
    backbone: Backbone,
    *,
    method_name: str,
    method: Method,
    head_name: str,
    head: Head,
    image_size: int,
    matryoshka_dimensions: tuple[int, ...],
    card: Card,
) -> RunConfig:
    """Return the config.json of a run in `folder`. A backbone inside `folder` gets a relative name."""
    name = backbone.name
    if backbone.folder.is_relative_to(folder):  # the backbone is part of the run
        name = f"./{backbone.folder.relative_to(folder).as_posix()}"
    elif backbone.revision is None and Path(name).is_dir() and name not in BUILT_IN:
        name = str(Path(name).resolve())
    used = ((methods.REGISTRY, method_name), (heads.REGISTRY, head_name), (BACKBONES, backbone.name))
    packages = {registry.kind: registry.package(part) for registry, part in used}
    return RunConfig(
        format=FORMAT,
        method=method_name,
        settings=method.settings,
        head=HeadConfig(name=head_name, settings=head.settings),
        packages={kind: package for kind, package in packages.items() if package},
        backbone=BackboneConfig(
            name=name,
            revision=backbone.revision,
            sha256=backbone.content_hash(),
            image_size=None if image_size == backbone.stored_image_size else image_size,
        ),
        preprocessing={
            "frames": "middle of equal intervals",
            "resize": _RESIZING[backbone.resizing.mode].format(backbone.resizing.interpolation),
            "image_size": image_size,
            "mean": list(backbone.mean),
            "std": list(backbone.std),
        },
        matryoshka_dimensions=matryoshka_dimensions,
        card=card,
    )


def publish(
    repo_id: str,
    backbone: Backbone,
    config: Callable[[Path, Backbone], RunConfig],
    trained: Mapping[str, nn.Parameter],
    *,
    private: bool | None,
    token: str | None,
    commit_message: str,
) -> str:
    """Publish a run, together with a backbone that is a local folder; see `TextVideoModel.push_to_hub`.

    Args:
        config: returns the config.json of a run in a folder, with a backbone.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with TemporaryDirectory(prefix="vop-") as temporary:
        folder = Path(temporary)
        local = backbone.revision is None and backbone.name not in BUILT_IN
        if local and BACKBONES.package(backbone.name) is None:
            backbone = replace(backbone, folder=copy_backbone(backbone.folder, folder))
        write(folder, config(folder, backbone), trained, name=repo_id)
        found = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=commit_message)
    return str(found.commit_url)
