"""Export clips of any video: small MP4 files that browsers play, and files to keep.

For the page, H.264 is copied: the exported file begins with the key frame before the clip, and its edit list makes
players begin later. Other formats are decoded and encoded again, at a constant frame rate. Files to keep are copied in
their own format if the copy looks like the file, else cut exactly and encoded at high quality. In all cases reading
begins near the clip, so that a late clip of a long video takes no longer than an early one.
"""

from vop.video.clip_export.export import CLIP_VERSION, export_clip
from vop.video.clip_export.saving import SAVED_VERSION, SavedClip, save_clip, saved_suffix

__all__ = ["CLIP_VERSION", "SAVED_VERSION", "SavedClip", "export_clip", "save_clip", "saved_suffix"]
