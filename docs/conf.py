"""The site: `make docs` builds it into build/site, and any warning fails the build.

The source is the whole checkout, so that a link or an image that a code host follows is one that
the site follows too.
"""

from __future__ import annotations

import importlib.metadata
import sys
import warnings
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

sys.path.insert(0, str(Path(__file__).parent))
import generate

from sqzexplore.report.page import write_report

ROOT = Path(__file__).resolve().parent.parent
START = "docs/index"

# The toc extension looks through every object in memory, and wakes this one of torch.
warnings.filterwarnings("ignore", message="`torch.distributed.reduce_op`", category=FutureWarning)

project = "sqzexplore"
author = copyright = "the sqzexplore authors"
release = version = importlib.metadata.version(project)

extensions = ["myst_nb", "sphinx_external_toc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = START
external_toc_path = "docs/_toc.yml"
include_patterns = ["*.md", "docs/**", "results/README.md", "results/*.ipynb"]
include_patterns += ["src/sqzexplore/data/*/README.md"]  # data cards
exclude_patterns = [".venv", ".git", "build"]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = html_show_sourcelink = False

smartquotes = False  # an option's two hyphens are no dash
myst_heading_anchors = 3
nb_execution_mode = "off"  # its outputs are committed, and a test runs it
default_role = "code"  # in docstrings a name stands between single backquotes
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_google_docstring, napoleon_numpy_docstring = True, False


class Generated(SphinxDirective):
    """A reference page's text, from the code; what stands in the block is for code hosts."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = generate.PAGES[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def link_folders(app: Sphinx, document: nodes.document) -> None:
    """A link to a result folder, which a code host lists, leads to the sweep's report."""
    for link in list(document.findall(pending_xref)):
        folder = Path(app.env.relfn2path(link["reftarget"])[1])
        if link["refdomain"] is None and folder.is_dir():
            if (folder / "trials.csv").exists():
                target = f"{folder.relative_to(ROOT).as_posix()}/report.html"
                uri = relative_uri(app.env.docname, target)
                link.replace_self(nodes.reference("", "", *link.children, refuri=uri))
            else:
                link.replace_self(link.children)


def write_rest(app: Sphinx, exception: Exception | None) -> None:
    """The reports of the committed sweeps, and a way in from the site's root."""
    if exception is None and app.builder.format == "html":
        for trials in sorted((ROOT / "results").glob("*/trials.csv")):
            target = app.outdir / trials.parent.relative_to(ROOT) / "report.html"
            target.parent.mkdir(parents=True, exist_ok=True)
            write_report(trials.parent, target)
        refresh = f'<meta http-equiv="refresh" content="0; url={START}.html">'
        (app.outdir / "index.html").write_text(f"<!doctype html>{refresh}\n")


def setup(app: Sphinx) -> None:
    app.add_directive("generated", Generated)
    app.connect("doctree-read", link_folders)
    app.connect("build-finished", write_rest)
