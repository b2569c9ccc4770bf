"""Encoders of whole videos: X-CLIP, VideoPrism and PE-Video, for zero-shot use."""
