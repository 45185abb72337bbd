"""How the pages are built: `python -m sphinx -W docs site`.

Nothing is fetched. The tutorial is executed, unless `-D nb_execution_mode=off` is given.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from vlmteach import __version__  # noqa: E402

project = "vlmteach"
author = "the authors of vlmteach"
copyright = "the authors of vlmteach, Apache-2.0"
release = version = __version__
language = "en-GB"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "extensions.mathml",
    "extensions.repository_links",
    "extensions.rooms",
]
exclude_patterns = ["extensions"]

html_theme = "furo"
html_title = "vlmteach"
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False

myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_footnote_transition = False

nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
# What libraries remark on stderr is shown where it is run, not in the page.
nb_output_stderr = "remove"

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "show-inheritance": True,
    "ignore-module-all": True,  # each thing where it is written, not where it is imported as well
}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"

# A reference of these pages that leads nowhere is an error; types of other libraries are no links.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!vlmteach\.).*|vlmteach\.asking\.T")]
# Two rooms may use one word for a class of their own, and an annotation has only the word.
suppress_warnings = ["ref.python"]
