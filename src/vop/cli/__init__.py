"""The `vop` command."""


def main() -> int:
    return 0
