"""The contrast of an MR image from what its header says about the sequence."""

from __future__ import annotations

import re

_LONG_ECHO_MS, _SHORT_ECHO_MS = 60.0, 30.0
_LONG_INVERSION_MS = 1500.0
_SHORT_REPETITION_MS, _LONG_REPETITION_MS = 1000.0, 2000.0
_T1_INVERSION_MS = (500.0, 1300.0)
_T1_WORDS = {"mprage", "mp2rage", "bravo", "spgr", "fspgr", "tfl", "tfl3d1", "vibe"}
_T2_WORDS = {"haste", "dwi", "swi", "swan", "bold", "ep2d", "diffusion"}
_PD_WORDS = {"pd", "pdw", "proton"}


def contrast_of(
    text: str, echo_ms: float | None = None, repetition_ms: float | None = None, inversion_ms: float | None = None
) -> str | None:
    """ "T1w", "T2w", "PDw", "FLAIR", or None where the header does not say.

    Parameters
    ----------
    text: descriptions of series and protocol.
    echo_ms, repetition_ms, inversion_ms: times of the sequence; a long echo time outweighs the descriptions.

    >>> contrast_of("Ax T2", 92), contrast_of("t1_mprage_sag"), contrast_of("Sag"), contrast_of("AX FLAIR T2")
    ('T2w', 'T1w', None, 'FLAIR')
    """
    named, measured = _by_words(text), _by_times(echo_ms, repetition_ms, inversion_ms)
    if measured in ("T2w", "FLAIR") and named in (None, "T1w", "PDw"):
        return measured
    return named or measured


def _by_words(text: str) -> str | None:
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"dark[ _-]*fluid|fluid[ _-]*attenuated", "flair", text.lower())))
    weights = {digit for word in words if word[:2] in ("t1", "t2") for digit in re.findall(r"t([12])(?!\d)", word)}
    t1, t2 = bool(words & _T1_WORDS) or "1" in weights, bool(words & _T2_WORDS) or "2" in weights
    if "flair" in words and not t1:
        return "FLAIR"
    if t1 != t2:
        return "T1w" if t1 else "T2w"
    return "PDw" if words & _PD_WORDS and not t1 else None


def _by_times(echo: float | None, repetition: float | None, inversion: float | None) -> str | None:
    if not echo:
        return None
    if echo >= _LONG_ECHO_MS:
        return "FLAIR" if (inversion or 0) >= _LONG_INVERSION_MS else "T2w"
    if echo > _SHORT_ECHO_MS:
        return None
    if inversion:
        return "T1w" if _T1_INVERSION_MS[0] <= inversion <= _T1_INVERSION_MS[1] else None
    if repetition and repetition <= _SHORT_REPETITION_MS:
        return "T1w"
    return "PDw" if repetition and repetition >= _LONG_REPETITION_MS else None
