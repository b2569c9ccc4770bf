"""Converters: checkpoints of other projects become ordinary folders. Nothing in them is executed."""
