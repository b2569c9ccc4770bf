from dataclasses import dataclass


@dataclass(frozen=True)
class Resizing:
    size: int = 224
    mode: str = "crop"
    interpolation: str = "bicubic"
