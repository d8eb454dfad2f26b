"""The documentation site: `make docs`, or `sphinx-build -W docs docs/_build/html`. It needs the extra `docs` and no network."""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
sys.path.insert(0, str(HERE.parent / "src"))  # this checkout's, whatever is installed
# For the kernels that execute the notebooks:
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent / "src"), os.environ.get("PYTHONPATH"))))
os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "prunescope"
copyright = "the prunescope developers, MIT licence"
version = re.search(r'__version__ = "(.*)"', (HERE.parent / "src/prunescope/__init__.py").read_text())[1]
release = version

extensions = [
    "sphinx.ext.autodoc",
    "myst_nb",
    "sphinx_copybutton",
    "registered",
    "commands",
    "docstrings",
    "mathml",
    "sections",
    "settings",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb"}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline", "attrs_block"]
myst_heading_anchors = 4  # links to headings are written as GitHub writes them, and are checked
nb_execution_mode = "force"  # only pages whose head says that they are notebooks are executed
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False
default_role = "code"
nitpicky = True
# Annotations name classes of torch and numpy, and classes inside prunescope that have no entry; there is no network to look them up.
nitpick_ignore_regex = [("py:.*", r".*")]

html_theme = "furo"
html_title = f"prunescope {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"
