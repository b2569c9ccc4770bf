"""Speech from espeak-ng, and a recognizer of key phrases, PocketSphinx, whose English model is in its package.

On the voice of espeak-ng, PocketSphinx understands next to nothing without key phrases: this tests the plumbing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

import numpy as np

from vop.search.words.speech import SpokenLine

SPEECH_RATE = 22_050  # of espeak-ng
_RETRIEVAL, _UTF8 = 1, 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@cache
def _library() -> ctypes.CDLL:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
    assert rate == SPEECH_RATE, rate
    library.espeak_SetVoiceByName(b"en-us")
    return library


def speak(text: str) -> np.ndarray:
    """Return a spoken text, int16 (samples,) at 22,050 Hz."""
    library, parts = _library(), []

    def take(samples, count, _events) -> int:
        if samples and count:
            parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _Callback(take)
    library.espeak_SetSynthCallback(callback)
    content = text.encode()
    library.espeak_Synth(content, ctypes.c_size_t(len(content) + 1), 0, 0, 0, _UTF8, None, None)
    library.espeak_Synchronize()
    return np.concatenate(parts).astype(np.int16)


class KeyPhrases:
    """Recognizes the phrases in its model's name, which `|` separates."""

    def __init__(self, model: str) -> None:
        self._phrases = model.split("|")

    def transcribe(self, samples: np.ndarray) -> Iterator[SpokenLine]:
        import tempfile

        from pocketsphinx import Decoder

        with tempfile.NamedTemporaryFile("w", suffix=".list") as file:
            file.write("".join(f"{phrase} /1e-20/\n" for phrase in self._phrases))
            file.flush()
            decoder = Decoder(kws=file.name, lm=None, samprate=16000.0, loglevel="FATAL")
        decoder.start_utt()
        decoder.process_raw((samples * 32767).astype(np.int16).tobytes(), full_utt=True)
        decoder.end_utt()
        for segment in decoder.seg() or ():
            yield SpokenLine(segment.word, segment.start_frame / 100, (segment.end_frame + 1) / 100)
