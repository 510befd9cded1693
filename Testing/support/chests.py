"""A chest of simple shapes in HU: body, lungs with a domed base, heart, spine, ribs, trachea, a lesion."""

import numpy as np

from MedGenLib.imaging.volume import LabelMap, Volume

LUNGS, LESION = 1, 2
_SIZE_MM = (320.0, 230.0, 260.0)


def chest(spacing=(3.0, 3.0, 3.0), rotation=None, height=260.0):
    """The CT, and its labels: lungs and a lesion in the right one.

    Parameters
    ----------
    rotation: (3, 3) of the axes; the patient turns with them.
    height: mm of the image from the head downwards.
    """
    from scipy.ndimage import gaussian_filter

    shape = np.round(np.divide((*_SIZE_MM[:2], height), spacing)).astype(int)
    x, y, z = (
        (np.arange(n) - (n - 1) / 2) * s + start
        for n, s, start in zip(shape, spacing, (0, 0, (_SIZE_MM[2] - height) / 2), strict=True)
    )
    x, y, z = np.meshgrid(x, y, z, indexing="ij")
    body = (x / 150) ** 2 + (y / 105) ** 2 < 1
    lungs = np.zeros(body.shape, bool)
    for side in (-58, 58):
        across = ((x - side) / 46) ** 2 + (y / 68) ** 2
        top = across + (np.maximum(z + 40, 0) / 150) ** 2 < 1
        lungs |= top & (z > -50 + 25 * (1 - across))
    heart = ((x + 10) / 36) ** 2 + ((y - 20) / 36) ** 2 + ((z + 10) / 40) ** 2 < 1
    lesion = (x - 60) ** 2 + y**2 + (z + 5) ** 2 < 10**2
    lungs &= ~heart
    hu = np.where(body, 40.0, -1000.0)
    hu[lungs] = -800
    ribs = np.abs(np.hypot(x / 125, y / 88) - 1) < 0.03
    hu[ribs & (z % 30 < 10)] = 500
    hu[(x**2 + (y + 72) ** 2 < 15**2)] = 300
    hu[(x**2 + (y + 35) ** 2 < 8**2) & (z > 60)] = -1000
    hu[lesion] = 50
    hu = gaussian_filter(hu, 0.7)  # the partial volume of a scanner
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if rotation is None else rotation) * np.asarray(spacing)
    affine[:3, 3] = (-30, 12, 400)
    labels = LUNGS * lungs.astype(np.uint8)
    labels[lesion] = LESION
    return (
        Volume(np.rint(hu).astype(np.int16), affine, "CT", "HU"),
        LabelMap(labels, affine, {LUNGS: "lungs", LESION: "lesion"}),
    )
