"""Sphinx configuration of the documentation site. `make docs` builds it offline, with warnings as errors."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "docs" / "_ext"), str(ROOT), str(ROOT / "MedGen")]

from MedGenLib import __version__  # noqa: E402

project = "MedGen"
author = "The MedGen authors"
copyright = "2026, The MedGen authors"  # the name is Sphinx's
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstring_sections", "generated_pages"]
exclude_patterns = ["_ext"]
source_suffix = {".md": "markdown"}
highlight_language = "none"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "code"
napoleon_google_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
autodoc_mock_imports = ["ctk", "qt", "slicer", "vtk"]

html_theme = "pydata_sphinx_theme"
html_title = f"MedGen {release}"
html_logo = "../Resources/Icons/MedGen.png"
html_favicon = html_logo
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
