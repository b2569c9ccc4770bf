"""The version of what decoding gives."""

# Counts changes of the frames that a video gives: which they are, and their pixels beyond rounding. Cached frames of
# another version are not used, and a library says which of its videos were decoded by an earlier one.
DECODER_VERSION = 3
