"""Small pictures for the documentation."""

import contextlib
import io
from pathlib import Path

LARGEST = 100 * 1000
"""Bytes of a picture."""
PALETTES = ((128, 96), (64, 64), (48, 48), (40, 32), (32, 24))
"""Levels of gray and numbers of colors that are tried, from the most on; the eye tells fewer apart in noise."""


def save(image, path: Path) -> None:
    """Write a QImage, or a picture of PIL, as PNG with a palette: even steps of gray, and the colors that occur."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        image = Image.frombytes(
            "RGB", (image.width(), image.height()), bytes(image.constBits()), "raw", "RGB", image.bytesPerLine()
        )
    for grays, colors in PALETTES:
        buffer = io.BytesIO()
        _reduced(image, grays, colors).save(buffer, "PNG", optimize=True)
        if buffer.tell() <= LARGEST:
            break
    path.write_bytes(buffer.getvalue())


def reduce(path: Path) -> None:
    """Give a PNG file a palette, if Pillow is installed."""
    with contextlib.suppress(ImportError):
        from PIL import Image

        save(Image.open(path).convert("RGB"), path)


def _reduced(image, grays: int, colors: int):
    import numpy as np
    from PIL import Image

    pixels = np.asarray(image)
    colored = pixels[np.ptp(pixels, axis=2) > 8]
    palette = np.repeat(np.linspace(0, 255, grays).round().astype(np.uint8), 3)
    if len(colored):
        found = Image.fromarray(colored[None]).quantize(colors, Image.Quantize.MEDIANCUT).getpalette()
        palette = np.concatenate([palette, np.array(found, np.uint8)])
    holder = Image.new("P", (1, 1))
    holder.putpalette(palette.tobytes())
    return image.quantize(palette=holder, dither=Image.Dither.NONE)
