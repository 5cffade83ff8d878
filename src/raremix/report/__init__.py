"""The report: a study's record as one page that opens offline, and its conclusion in plain words."""

from raremix.report.images import Images, read_images
from raremix.report.page import render, write_report
from raremix.report.record import Record, read_record
from raremix.report.tables import Table, tables
from raremix.report.words import conclude

__all__ = [
    "Images",
    "Record",
    "Table",
    "conclude",
    "read_images",
    "read_record",
    "render",
    "tables",
    "write_report",
]
