"""Export clips of any video as MP4 files that browsers play.

H.264 is copied: the exported file begins with the key frame before the clip, and its edit list makes players begin
later. Other formats are decoded and encoded again, at a constant frame rate. In both cases reading begins near the
clip, so that a late clip of a long video takes no longer than an early one.
"""

from vop.video.clip_export.export import CLIP_VERSION, export_clip

__all__ = ["CLIP_VERSION", "export_clip"]
