"""CLIP in the format of `transformers`."""
