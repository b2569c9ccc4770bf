"""`vop import`: models that others have released."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from vop.cli.common import command_line, say


def add_parser(subparsers) -> None:
    group = subparsers.add_parser("import", help="convert OpenAI's CLIP files or the authors' released VoP")
    group = group.add_subparsers(metavar="KIND", required=True)
    openai = group.add_parser("openai", help="OpenAI's .pt file to a CLIP folder")
    openai.add_argument("file", metavar="FILE", type=Path)
    openai.add_argument("--out", metavar="DIR", type=Path, required=True)
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
    from vop.imports.openai import import_openai

    import_openai(arguments.file, arguments.out, vocabulary=arguments.vocabulary)
    say(f"{arguments.out}: use it as {shlex.join(['--backbone', str(arguments.out)])}")


def run_modelscope(arguments: argparse.Namespace) -> None:
    from vop.imports.modelscope import import_modelscope

    import_modelscope(arguments.folder, arguments.out, vocabulary=arguments.vocabulary)
    say(f"{arguments.out}: use it as a run, {command_line('evaluate', arguments.out)} --data SPEC")
