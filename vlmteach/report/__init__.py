"""Rows and records -> pages: what a run or a sweep left, as one file that any browser opens.

A page loads nothing but the clips and pictures beside it, runs no script but its own, and takes
every word of an instance for a stranger's.
"""

from vlmteach.report.build import COMPARISON, PAGE, write_report

__all__ = ["COMPARISON", "PAGE", "write_report"]
