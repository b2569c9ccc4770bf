"""Chinese-CLIP."""
