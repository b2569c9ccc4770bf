"""Write moments to files: check what is there, write each file as a whole, and report what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from vop.errors import FileFailure, UsageError, VideoError
from vop.export.formats import CLIPS, LISTS, SUBTITLES, format_of
from vop.export.lists import list_document
from vop.export.moments import ExportableMoment, ExportedFile, ExportReport, Line, Moments, Original
from vop.export.names import clip_name
from vop.export.subtitles import cut_subtitles
from vop.utils.files import atomic_write
from vop.utils.progress import Progress, silent
from vop.utils.text import count, first_few
from vop.video.clip_export.saving import save_clip, saved_suffix

Lines: TypeAlias = Callable[[ExportableMoment], Iterable[Line]]  # returns the lines of a moment's video

_EXISTS = "a file of this name exists already"


def _no_lines(moment: ExportableMoment) -> Sequence[Line]:
    return ()


def export_moments(
    moments: Moments,
    out: str | Path,
    *,
    original: Original,
    format: str | None = None,
    exact: bool = False,
    subtitles: bool = False,
    overwrite: bool = False,
    lines: Lines = _no_lines,
    name: str | None = None,
    first_number: int = 1,
    progress: Progress = silent,
) -> ExportReport:
    """Write moments as clips, subtitles, a table or a list for video editors.

    Args:
        out: a file for a list, a folder for clips and subtitles; or a file for the subtitles of one moment.
        original: yields the file of a moment.
        format: one of `FORMATS`; by default that of the suffix of `out`, and clips without a suffix.
        exact: whether to cut clips at their exact times, and encode them again.
        subtitles: whether to write the subtitles of each clip beside it.
        overwrite: whether to replace existing files.
        lines: returns what is spoken or written in the video of a moment, for subtitles.
        name: the title of a list; by default the name of its file.
        first_number: the number in the name of the first clip, or of its subtitles.
        progress: called after each file.

    Raises:
        UsageError: there are no moments, a file exists already, or the format does not fit.
        VopError: a file cannot be written. Earlier files stay.
    """
    out = Path(out)
    kind = format_of(out, format)
    if not moments:
        raise UsageError("there are no moments to export")
    if kind in LISTS:
        _check_free([out], overwrite=overwrite)
        document = list_document(moments, kind, original=original, name=name or out.stem)
        if not document.moments:
            return ExportReport(format=kind, path=str(out), files=(), skipped=document.skipped)
        with atomic_write(out) as temporary:
            temporary.write_bytes(document.encoded())
        written = ExportedFile(path=str(out), moments=document.moments)
        return ExportReport(
            format=kind, path=str(out), files=(written,), skipped=document.skipped, notes=document.notes
        )
    targets = _targets(moments, out, kind, exact=exact, first_number=first_number)
    _check_free(targets, overwrite=overwrite)
    write = partial(_subtitles, format=kind, lines=lines)
    if kind == CLIPS:
        write = partial(_clip, exact=exact, lines=lines if subtitles else None, overwrite=overwrite)
    files: list[ExportedFile] = []
    skipped: list[FileFailure] = []
    for number, (moment, target) in enumerate(zip(moments, targets, strict=True), start=1):
        try:
            if target.exists() and not overwrite:  # another program may have written it meanwhile
                raise VideoError(moment.path, f"{target.name}: {_EXISTS}")
            with original(moment) as file:
                files += write(moment, file, target)
        except VideoError as error:
            skipped.append(FileFailure(path=moment.path, reason=error.reason))
        progress(kind, number, len(moments), note=target.name)
    return ExportReport(format=kind, path=str(out), files=tuple(files), skipped=tuple(skipped))


def _targets(moments: Moments, out: Path, kind: str, *, exact: bool, first_number: int) -> list[Path]:
    """Return the file of each moment."""
    if kind in SUBTITLES and out.suffix.lower() == f".{kind}" and not out.is_dir():
        if len(moments) > 1:
            raise UsageError(
                f"{out}: this is one file, and there are {count('moment', len(moments))}: give a folder and the format"
            )
        return [out]
    found = []
    for number, moment in enumerate(moments, start=first_number):
        suffix = f".{kind}" if kind in SUBTITLES else saved_suffix(moment.path, exact=exact)
        found.append(out / (clip_name(moment.path, moment.start_seconds, moment.end_seconds, number=number) + suffix))
    return found


def _check_free(paths: Sequence[Path], *, overwrite: bool) -> None:
    taken = [path for path in paths if path.exists()]
    if taken and not overwrite:
        listed = "\n".join(first_few(map(str, taken)))
        raise UsageError(f"{_EXISTS}; choose another place, or allow overwriting:\n{listed}")


def _clip(
    moment: ExportableMoment, file: Path, target: Path, *, exact: bool, lines: Lines | None, overwrite: bool
) -> list[ExportedFile]:
    saved = save_clip(
        file,
        target,
        start_seconds=moment.start_seconds,
        end_seconds=min(moment.end_seconds, moment.duration_seconds),
        duration_seconds=moment.duration_seconds,
        exact=exact,
    )
    found = [ExportedFile(path=str(target), moments=1, lead_seconds=saved.lead_seconds, copied=saved.copied)]
    beside = target.with_suffix(".srt")
    if lines is not None and (overwrite or not beside.exists()):
        text = cut_subtitles(lines(moment), start_seconds=saved.start_seconds, end_seconds=moment.end_seconds)
        found += _written(text, beside)
    return found


def _subtitles(moment: ExportableMoment, file: Path, target: Path, *, format: str, lines: Lines) -> list[ExportedFile]:
    times = {"start_seconds": moment.start_seconds, "end_seconds": moment.end_seconds}
    written = _written(cut_subtitles(lines(moment), **times, format=format), target)
    if not written:
        raise VideoError(moment.path, "it has no subtitles in this moment")
    return written


def _written(text: str, target: Path) -> list[ExportedFile]:
    if not text:
        return []
    with atomic_write(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return [ExportedFile(path=str(target), moments=1)]
