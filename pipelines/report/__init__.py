"""The report of a run: one self-contained ``report.html`` with pictures, figures and a 3D view, for any browser."""

from pipelines.report.write import ReportOptions, write_report

__all__ = ["ReportOptions", "write_report"]
