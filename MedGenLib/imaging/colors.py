"""Colors of labels as "#rrggbb"."""

from __future__ import annotations

from collections.abc import Iterable


def hex_color(parts: Iterable[str | float], white: float = 1) -> str | None:
    """A color from its red, green and blue parts, of which `white` is the largest; None if they are no color.

    >>> hex_color([255, 128, 0], 255), hex_color("1 0.5 0".split()), hex_color(["red"])
    ('#ff8000', '#ff8000', None)
    """
    try:
        red, green, blue = (round(float(part) / white * 255) for part in parts)
        return f"#{bytes([red, green, blue]).hex()}"
    except (ValueError, OverflowError):  # another number of parts, no numbers, or outside of the range
        return None


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green and blue from 0 to 255.

    >>> rgb("#ff8000")
    (255, 128, 0)
    """
    return tuple(bytes.fromhex(color[1:]))
