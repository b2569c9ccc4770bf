"""CLIP and its exports for `transformers`."""
