"""`vop import`: models that others have released."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from vop.cli.common import command_line, say


def add_parser(subparsers) -> None:
    group = subparsers.add_parser("import", help="convert OpenAI's CLIP files or the authors' released VoP")
    group = group.add_subparsers(metavar="KIND", required=True)
    openai = group.add_parser(
        "openai",
        help="OpenAI's .pt file to a CLIP folder",
        description="Converts OpenAI's CLIP files (ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px). Of another file with "
        "the same tensors, such as open_clip's, the number of heads and the activation have to be given.",
    )
    openai.add_argument("file", metavar="FILE", type=Path)
    openai.add_argument("--out", metavar="DIR", type=Path, required=True)
    openai.add_argument(
        "--heads", metavar="N", type=int, help="attention heads of the vision tower, if not OpenAI's file"
    )
    openai.add_argument("--text-heads", metavar="N", type=int, help="attention heads of the text tower, likewise")
    openai.add_argument("--activation", choices=["quick-gelu", "gelu"], help="activation of both towers, likewise")
    openai.set_defaults(run=run_openai)
    modelscope = group.add_parser("modelscope", help="the authors' released VoP to a run")
    modelscope.add_argument("folder", metavar="DIR", type=Path)
    modelscope.add_argument("--out", metavar="RUN", type=Path, required=True)
    modelscope.set_defaults(run=run_modelscope)
    for parser in (openai, modelscope):
        parser.add_argument(
            "--vocabulary", metavar="FILE", type=Path, help="bpe_simple_vocab_16e6.txt.gz, if elsewhere"
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
    say(f"{arguments.out}: use it as {shlex.join(['--backbone', str(arguments.out)])}")


def run_modelscope(arguments: argparse.Namespace) -> None:
    from vop.converters.modelscope import import_modelscope

    import_modelscope(arguments.folder, arguments.out, vocabulary=arguments.vocabulary)
    say(f"{arguments.out}: use it as a run, {command_line('evaluate', arguments.out)} --data SPEC")
