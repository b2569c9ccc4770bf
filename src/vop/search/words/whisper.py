"""Whisper models, by faster-whisper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from vop.errors import UsageError
from vop.search.words.speech import Samples, SpokenLine
from vop.utils.files import expand


class WhisperRecognizer:
    """Recognizes speech with a Whisper model in CTranslate2's format.

    Args:
        model: a folder, a hub id (`Systran/faster-whisper-small`) or a size (`small`).
    """

    def __init__(self, model: str) -> None:
        self._model = _load(model)

    def transcribe(self, samples: Samples) -> Iterator[SpokenLine]:
        """Yield the lines. Silence is left out first, because Whisper invents text for it."""
        segments, _ = self._model.transcribe(samples, vad_filter=True, condition_on_previous_text=False)
        for segment in segments:
            yield SpokenLine(segment.text, segment.start, segment.end)


def _load(model: str) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        raise UsageError("speech needs the extra `speech`, which is not installed: pip install 'vop[speech]'") from None
    path = expand(model)
    is_path = path.is_absolute() or model.startswith((".", "~"))
    if is_path and not (path / "model.bin").is_file():
        raise UsageError(
            f"{model!r} is not the folder of a Whisper model for faster-whisper, which has a model.bin; give such a "
            "folder, a hub id such as Systran/faster-whisper-small, or a size such as small"
        )
    name = str(path) if os.path.isdir(path) else model
    try:
        return WhisperModel(name)
    except Exception as error:  # of the hub, of the network, or of CTranslate2
        raise UsageError(
            f"the Whisper model {model!r} cannot be loaded: {error}; give a folder with its model.bin, a hub id such "
            "as Systran/faster-whisper-small, or a size such as small"
        ) from error
