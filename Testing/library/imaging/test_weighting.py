"""The contrast of an MR image from descriptions and times of its sequence."""

import pytest

from MedGenLib.imaging.weighting import contrast_of


@pytest.mark.parametrize(
    "text, times, expected",
    [
        ("Ax T2", (92, 4000, None), "T2w"),
        ("Ax T2", (), "T2w"),
        ("t2_tse_tra_320", (), "T2w"),
        ("T2w_SPC", (), "T2w"),
        ("AX T2* GRE", (20, 600, None), "T2w"),
        ("ep2d_diff", (90, 5000, None), "T2w"),
        ("Sag T1 MPRAGE", (2.9, 2300, 900), "T1w"),
        ("t1ce", (), "T1w"),
        ("T1post", (), "T1w"),
        ("Ax T1 FLAIR", (8, 2000, 860), "T1w"),
        ("AX FLAIR", (120, 9000, 2500), "FLAIR"),
        ("t2_space_dark-fluid_sag", (), "FLAIR"),
        ("PD AXIAL", (), "PDw"),
        ("", (92, 4000, None), "T2w"),
        ("", (120, 9000, 2500), "FLAIR"),
        ("", (2.9, 2300, 900), "T1w"),
        ("", (12, 550, None), "T1w"),
        ("", (15, 3000, None), "PDw"),
        ("Ax T1", (92, 4000, None), "T2w"),
        ("Head T10 series", (), None),
        ("T1T2 mapping", (), None),
        ("localizer", (), None),
        ("", (), None),
        ("", (40, 3000, None), None),
    ],
)
def test_contrast(text, times, expected):
    assert contrast_of(text, *times) == expected
