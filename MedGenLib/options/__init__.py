"""The single declaration of every option, and its form on each surface.

Python functions take ``**options: Unpack[GenerateOptions]``, so that an option is declared once, in a `TypedDict`, and
editors complete it (PEP 692). `documented` adds the options to the signature and the docstring at run time, so that
`help` and interactive completion show each one with its type, default and help. Only the standard library is imported:
`medgen --help` has to be instant.

>>> validate("generate", {"guidance": 2, "preset": None})["preset"]
'normal'
>>> of("generate", "slicer")["noiseHU"].range_text
'1 to 50 HU (CT) or a.u. (MR)'
"""

from MedGenLib.options.declarations import (
    COMMANDS,
    LEAST_NOISE_HU,
    MOST_NOISE_HU,
    BreatheOptions,
    CanvasOptions,
    ClassifyOptions,
    DetectOptions,
    EditOptions,
    EnhanceOptions,
    EvaluateOptions,
    GenerateOptions,
    LesionOptions,
    RedrawOptions,
    TranslateOptions,
)
from MedGenLib.options.functions import changed, deprecated, documented, validate
from MedGenLib.options.option import REQUIRED, Option
from MedGenLib.options.reference import table
from MedGenLib.options.surfaces import RENAMED, SURFACES, camel, missing, of, snake

__all__ = [
    "COMMANDS",
    "LEAST_NOISE_HU",
    "MOST_NOISE_HU",
    "RENAMED",
    "REQUIRED",
    "SURFACES",
    "BreatheOptions",
    "CanvasOptions",
    "ClassifyOptions",
    "DetectOptions",
    "EditOptions",
    "EnhanceOptions",
    "EvaluateOptions",
    "GenerateOptions",
    "LesionOptions",
    "Option",
    "RedrawOptions",
    "TranslateOptions",
    "camel",
    "changed",
    "deprecated",
    "documented",
    "missing",
    "of",
    "snake",
    "table",
    "validate",
]
