"""Videos as files: what a file holds, when its frames are shown, and those frames as pixels."""
