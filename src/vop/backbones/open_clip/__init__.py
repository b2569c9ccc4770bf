"""Checkpoints of open_clip (open_clip_torch), and the towers of timm inside them."""
