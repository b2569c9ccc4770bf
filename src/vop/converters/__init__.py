"""Others' checkpoints, read without running anything that they contain, and written as ordinary folders of ours."""
