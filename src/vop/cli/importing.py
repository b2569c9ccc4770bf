"""`vop import`: converts models that other projects released."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from vop.cli.common import command_line, say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = subparsers.add_parser(
        "import",
        help="Convert OpenAI's CLIP files or the authors' released models.",
        description="Converts files of other projects: OpenAI's CLIP to a CLIP folder, or the authors' released "
        "models to a run.",
    )
    group = command.add_subparsers(metavar="KIND", required=True)
    openai = group.add_parser(
        "openai",
        help="Convert OpenAI's .pt file to a CLIP folder.",
        description="Converts OpenAI's CLIP files (ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px). For another file "
        "with the same tensors, such as open_clip's, also give the numbers of heads and the activation.",
    )
    openai.add_argument("file", metavar="FILE", type=Path, help="The .pt file.")
    openai.add_argument("--out", metavar="DIR", type=Path, required=True, help="CLIP folder to create.")
    only = "Only for files that are not OpenAI's own."
    openai.add_argument("--heads", metavar="N", type=int, help=f"Attention heads of the vision tower. {only}")
    openai.add_argument("--text-heads", metavar="N", type=int, help=f"Attention heads of the text tower. {only}")
    openai.add_argument("--activation", choices=["quick-gelu", "gelu"], help=f"Activation of both towers. {only}")
    openai.set_defaults(run=run_openai)
    modelscope = group.add_parser(
        "modelscope",
        help="Convert a model that the authors of VoP released to a run.",
        description="Converts a model that the authors released on ModelScope (VoP, Bias, Partial or Proj) to a run "
        "that contains its backbone.",
    )
    modelscope.add_argument("folder", metavar="DIR", type=Path, help="Folder of the downloaded model.")
    modelscope.add_argument("--out", metavar="RUN", type=Path, required=True, help="Folder of the run to create.")
    modelscope.set_defaults(run=run_modelscope)
    for parser in (openai, modelscope):
        parser.add_argument(
            "--vocabulary",
            metavar="FILE",
            type=Path,
            help="OpenAI's bpe_simple_vocab_16e6.txt.gz (default: the file beside the weights).",
        )


def run_openai(arguments: argparse.Namespace) -> None:
    from vop.converters.openai import import_openai

    import_openai(
        arguments.file,
        arguments.out,
        vocabulary=arguments.vocabulary,
        heads=arguments.heads,
        text_heads=arguments.text_heads,
        activation=arguments.activation,
    )
    say(f"{arguments.out}: use it with {shlex.join(['--backbone', str(arguments.out)])}")


def run_modelscope(arguments: argparse.Namespace) -> None:
    from vop.converters.modelscope import import_modelscope

    import_modelscope(arguments.folder, arguments.out, vocabulary=arguments.vocabulary)
    say(f"{arguments.out}: evaluate this run with {command_line('evaluate', arguments.out)} --data SPEC")
