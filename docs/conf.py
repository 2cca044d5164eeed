"""How the documentation is built; `make docs` does it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from skerry import __version__

project = "Skerry"
author = "The Skerry developers"
copyright = "the Skerry developers, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "skerry_reference"]
exclude_patterns = ["_build", "_ext"]
nitpicky = True
# Examples of messages hold placeholders such as <envelope>, which no highlighter knows.
suppress_warnings = ["misc.highlighting_failure"]

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Skerry"
html_copy_source = False
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
