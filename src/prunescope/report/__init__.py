"""Reports of a run: tables, figures for papers, comparisons, what to cite, and one self-contained page."""

from prunescope.report.citation import cite
from prunescope.report.comparison import Comparison, compare
from prunescope.report.comparisontext import write_comparison
from prunescope.report.digest import Digest, digest
from prunescope.report.figures import figure_names, figures, write_figures
from prunescope.report.html import write_report
from prunescope.report.text import summary_markdown, summary_rows

__all__ = [
    "Comparison",
    "Digest",
    "cite",
    "compare",
    "digest",
    "figure_names",
    "figures",
    "summary_markdown",
    "summary_rows",
    "write_comparison",
    "write_figures",
    "write_report",
]
