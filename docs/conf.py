"""Configuration of the site that `make docs` builds with Sphinx."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpydoc.xref
from docutils import nodes
from docutils.utils.math import latex2mathml
from sphinx.application import Sphinx
from sphinx_gallery.directives import imgsgnode

import flip_sklearn

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/flip-sklearn/flip-sklearn"

project = "flip-sklearn"
author = "The flip-sklearn developers"
project_copyright = author
version = release = flip_sklearn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
templates_path = ["_templates"]
exclude_patterns = ["gallery/**/*.md5", "gallery/**/*.ipynb", "gallery/**/*.py"]

autosummary_generate = True
toc_object_entries_show_parents = "hide"
highlight_language = "none"  # of the formulas in docstrings; all other code names its language
autodoc_typehints = "none"  # types are in the docstrings, with shapes and ranges
numpydoc_show_class_members = False  # the templates list them
numpydoc_class_members_toctree = False
# Types of this package are links; those of Python and NumPy would need addresses from the network.
numpydoc_xref_param_type = True
numpydoc_xref_ignore = "all"
numpydoc.xref.DEFAULT_LINKS.clear()
numpydoc_xref_aliases = {
    name.rpartition(".")[2]: name
    for name in re.findall(r"^   (flip_sklearn\.\S+)$", Path(__file__).with_name("api.rst").read_text(), re.M)
}

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_inline"]
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"  # prompts and results of sessions

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"/plot_",
    "ignore_pattern": r"^(?!plot_)",
    "within_subsection_order": "FileNameSortKey",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("flip_sklearn",),
    "reference_url": {"flip_sklearn": None},
    "matplotlib_animations": False,
    "remove_config_comments": True,
    "show_memory": False,
    "write_computation_times": False,
    "show_signature": False,
    "capture_repr": ("_repr_html_",),  # not the name of the object that drew a picture
    "plot_gallery": "True",
    "abort_on_example_error": True,
}

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = "flip-sklearn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_baseurl = "https://flip-sklearn.github.io/flip-sklearn/"
html_show_sourcelink = False
html_theme_options = {
    "github_url": REPOSITORY,
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "navbar_persistent": ["search-button"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
}
html_sidebars = {"index": [], "installation": [], "tutorial": [], "gallery/*": []}


def link_outside_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to files beside this folder lead to the gallery, the changelog or the repository."""
    text = re.sub(r"\]\(\.\./examples/(plot_\w+)\.py\)", r"](gallery/\1.rst)", source[0])
    text = text.replace("](../examples/GALLERY_HEADER.rst)", "](gallery/index.rst)")
    text = text.replace("](../CHANGELOG.md)", "](changelog.md)").replace(
        "](../CONTRIBUTING.md)", "](contributing.md)"
    )
    source[0] = re.sub(r"\]\(\.\./([^)\s]+)\)", rf"]({REPOSITORY}/blob/main/\1)", text)


def describe_thumbnails(app: Sphinx, doctree: nodes.document) -> None:
    """Give the small pictures of the gallery a text, and escape that of the others."""
    for image in doctree.findall(nodes.image):
        example = re.search(r"sphx_glr_(plot_\w+)_thumb", image["uri"])
        if example and not image.get("alt"):
            image["alt"] = f"Picture of the example {example[1]}"
    for picture in doctree.findall(imgsgnode):
        picture["alt"] = html.escape(picture["alt"])  # sphinx-gallery writes it as it is


def link_pages(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Turn `docs/NAME.md` in a docstring into a link, and leave out paragraphs with links of scikit-learn."""
    paragraphs = "\n".join(lines).split("\n\n")
    text = "\n\n".join(paragraph for paragraph in paragraphs if ":ref:" not in paragraph)
    lines[:] = re.sub(r"`{0,2}\bdocs/([\w-]+)\.md`{0,2}", r":doc:`/\1`", text).split("\n")


def write_inline_formula(self: Any, node: nodes.math) -> None:
    """Write a formula as MathML, which browsers draw themselves, without a script of another server."""
    self.body.append(latex2mathml.tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def write_formula(self: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    self.body.append(
        f'<div class="formula" tabindex="0">{latex2mathml.tex2mathml(node.astext(), as_block=True)}</div>'
    )
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the hooks; Sphinx calls this function."""
    app.add_html_math_renderer("mathml", (write_inline_formula, None), (write_formula, None))
    app.connect("source-read", link_outside_files)
    app.connect("doctree-read", describe_thumbnails)
    app.connect("autodoc-process-docstring", link_pages)
