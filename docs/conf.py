"""Sphinx configuration."""

from importlib.metadata import version as _version

project = "numpyro_inverse"
author = "The numpyro_inverse maintainers"
release = version = _version("numpyro-inverse")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "member-order": "bysource"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False

exclude_patterns = ["_build"]
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository
html_theme = "furo"
html_static_path = ["_static"]
