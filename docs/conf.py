"""Sphinx's configuration of the site. scripts/docs_pages.py writes its sources, scripts/docs.sh builds it."""

from pathlib import Path

from bridle_fairseq import __version__

project = "bridle_fairseq"
version = release = __version__
copyright = "the bridle_fairseq authors"  # noqa: A001, Sphinx's name
html_title = f"bridle_fairseq {version}"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_search_scorer = str(Path(__file__).with_name("static") / "scorer.js")
html_copy_source = False
html_show_sphinx = False
root_doc = "README"
smartquotes = False  # two dashes are an option
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4  # as GitHub writes them
myst_enable_extensions = ["strikethrough"]
autodoc_default_options = {"show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_mock_imports = ["mteb", "s3prl", "xares"]  # packages of adapters that the environment lacks
maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_ivar = True
