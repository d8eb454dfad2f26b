"""Reports of a run: tables, figures for papers, and one self-contained page."""

from prunescope.report.figures import write_figures
from prunescope.report.html import write_report

__all__ = ["write_figures", "write_report"]
