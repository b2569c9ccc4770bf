"""The documentation as a site: `make docs` writes docs/_build/html/index.html."""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from vop.version import VERSION

ROOT = Path(__file__).resolve().parent.parent

project = "vop"
author = copyright = "the vop authors"
version = release = VERSION

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["misc.highlighting_failure"]  # Pygments does not know every kind of file that is shown
templates_path: list[str] = []

html_theme = "furo"
html_title = f"vop {VERSION}"
html_static_path: list[str] = []

# Headings get the anchors that code hosts give them. The quickstart is not run, but shown with its saved outputs.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
copybutton_exclude = ".linenos, .gp, .go"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Names of other libraries, and names of ours that the reference does not list, are not links.
nitpick_ignore_regex = [("py:.*", ".*")]


# -- Links to files that are not on the site


def link_within_repository(app: Sphinx, page: nodes.document) -> None:
    """Resolve links to files and folders of the repository: to their page on the site, or else as plain text."""
    folder = Path(app.env.doc2path(app.env.docname)).parent
    for link in list(page.findall(addnodes.pending_xref)):
        if link.get("reftype") != "myst":
            continue
        target = link["reftarget"]
        paths = [folder / target, folder / f"{target}.md", ROOT / target, ROOT / f"{target}.md"]
        found = next((path.resolve() for path in paths if path.exists()), None)
        if found is None or found.is_relative_to(ROOT / "docs"):
            continue
        if found.parent == ROOT and (ROOT / "docs" / found.name.lower()).exists():
            link["refdomain"], link["reftarget"], link["reftargetid"] = "doc", found.stem.lower(), None
        else:
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    app.connect("doctree-read", link_within_repository)
