"""Moments that a user keeps: clips, subtitles, tables, and lists for video editors.

| format | file | module |
| --- | --- | --- |
| clips | a folder of video files | `vop.video.clip_export.saving` |
| srt, vtt | a folder of subtitles, one file for each moment that has any | `subtitles` |
| csv, json | a table, or what `vop search --json` prints | `table` |
| edl | CMX 3600, for every editor | `edl` |
| fcpxml | for Final Cut Pro and DaVinci Resolve | `fcpxml` |
| otio | OpenTimelineIO, for everything else | `otio` |

The lists for editors share `timeline`: which frames of which files, counted as editors count them.
"""

from vop.export.exporting import export_moments
from vop.export.formats import FORMATS, format_of
from vop.export.lists import ListDocument, list_document
from vop.export.moments import ExportedFile, ExportReport, Line, Moments, Original

__all__ = [
    "FORMATS",
    "ExportReport",
    "ExportedFile",
    "Line",
    "ListDocument",
    "Moments",
    "Original",
    "export_moments",
    "format_of",
    "list_document",
]
