"""Moments of any video as MP4 files that a browser plays, and a cache of them.

H.264 is copied as it is: the file begins with the key frame before the moment, and its edit list has players begin
later. All else is decoded and encoded again, at a constant rate. Both read the file from near the moment only, so
that a moment late in a long video takes no longer than an early one.
"""

from vop.server.media.cache import MomentCache, NoRoom
from vop.server.media.writing import MOMENT_VERSION, write_moment

__all__ = ["MOMENT_VERSION", "MomentCache", "NoRoom", "write_moment"]
