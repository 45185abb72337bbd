"""Rows to tables and plots: every cell with its interval, every table with its n.

python -m benchmarks.table RUNS... --out DIR
"""

from benchmarks.table.rows import COSTS, Row, measures_of, read_rows
from benchmarks.table.statistics import (
    Teacher,
    r_squared,
    summarize,
    teachers,
)
from benchmarks.table.text import csv_rows, markdown
from vlmteach.report.statistics import mean_interval, paired_difference

__all__ = [
    "COSTS",
    "Row",
    "Teacher",
    "csv_rows",
    "markdown",
    "mean_interval",
    "measures_of",
    "paired_difference",
    "r_squared",
    "read_rows",
    "summarize",
    "teachers",
]
