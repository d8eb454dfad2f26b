"""Reports of a run: tables, figures for papers, and one self-contained page."""

from prunescope.report.figures import write_figures
from prunescope.report.html import write_report
from prunescope.report.text import summary_markdown, summary_rows

__all__ = ["summary_markdown", "summary_rows", "write_figures", "write_report"]
