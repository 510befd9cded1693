"""Figures in words."""

import math
import re

from slicer.i18n import tr as _

MAPPING = r"(?:state (?:it|what they mean)|map each to one of its labels|so map them)\b.*--map.*(?=\.$)"
"""Where a sentence asks for the option that says what labels mean."""


def duration(seconds: float) -> str:
    """Seconds as "9 s" or "4 min"; whole seconds below two minutes."""
    if seconds < 120:
        return _("{count} s").format(count=max(1, round(seconds)))
    return _("{count} min").format(count=round(seconds / 60))


def memory(mib: float) -> str:
    """Mebibytes as "350 MB" or "1.1 GB"."""
    if mib < 1000:
        return _("{size} MB").format(size=round(mib))
    return _("{size} GB").format(size=f"{mib / 1024:.1f}")


def device(info: dict) -> str:
    """A device of the worker in words: name, and free of total memory."""
    text = info.get("description") or info["name"]
    free, total = info.get("free_mib"), info.get("total_mib")
    if not free:
        return text
    if not total:
        return _("{device}, {free} free").format(device=text, free=memory(free))
    if total < 1000:
        return _("{device}, {free} of {total} MB free").format(device=text, free=round(free), total=round(total))
    return _("{device}, {free} of {total} GB free").format(device=text, free=_gigabytes(free), total=_gigabytes(total))


def stage(progress: dict) -> str:
    """A progress notification as one line: stage, step, time left."""
    text = str(progress.get("stage") or _("working"))
    text = text[:1].upper() + text[1:]
    step, total, left = progress.get("step"), progress.get("total"), progress.get("seconds_left")
    if total and total > 1:
        text = _("{stage}, step {step} of {total}").format(stage=text, step=step, total=total)
    if left is not None and left >= 1:
        text = _("{text}, about {time} left").format(text=text, time=duration(left))
    return text


def inPanel(sentence: str) -> str:
    """A sentence of the library in the words of the panel: without hints for the command line and Python."""
    if "--" not in sentence and "Python:" not in sentence:
        return sentence
    named = _("make a segmentation of it and give each segment a name")
    for pattern, words in ((r" \((?:command line|Python): [^()]*(?:\([^()]*\))?[^()]*\)", ""), (MAPPING, named)):
        sentence = re.sub(pattern, words, sentence)
    return sentence


def figure(value: float, low: float = math.nan, high: float = math.nan) -> str:
    """A measured value with its interval, "75 (34.9 to 96.8)"; a dash where there is none."""
    if math.isnan(value):
        return "–"
    text = f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    if math.isnan(low):
        return text
    return _("{value} ({low} to {high})").format(value=text, low=f"{low:.3g}", high=f"{high:.3g}")


def listed(names: list[str], most: int = 4) -> str:
    """Names separated by commas; those after the first few are counted."""
    more = len(names) - most
    text = ", ".join(names[:most])
    return _("{names} and {count} more").format(names=text, count=more) if more > 0 else text


def lines(sentences: list[str], most: int = 3) -> tuple[str, str]:
    """Sentences below each other, and all of them for a tooltip where only the first few are shown."""
    more = len(sentences) - most
    if more <= 0:
        return "\n".join(sentences), ""
    shown = [*sentences[:most], _("And {count} more; hold the pointer here to read all.").format(count=more)]
    return "\n".join(shown), "\n".join(sentences)


def _gigabytes(mib: float) -> str:
    value = mib / 1024
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
