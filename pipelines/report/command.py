"""``vlm3-recon report RUN``: makes the report of a run again, with comparisons where others are given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg

from pipelines.compare import compare_all
from pipelines.report.write import ReportOptions, check_report_path, write_report
from pipelines.runs import open_run
from recon.evaluation.compare import CompareOptions

__all__ = ["Options", "run"]


@dataclass(frozen=True)
class Options:
    """Make the report of a finished run again: one HTML file with everything in it.

    With other results or ground truth, it holds tables and plots of how they agree.
    """

    run: Positional[Path]
    """a workspace, or the mesh beside it"""
    with_: Annotated[UseAppendAction[tuple[Path, ...]], arg(name="with", metavar="OTHER")] = ()
    """what the run is compared with; can be given several times"""
    out: Path | None = None
    """the file to write (default: report.html in the workspace)"""
    quiet: bool = False
    """say nothing"""
    contents: OmitArgPrefixes[ReportOptions] = field(default_factory=ReportOptions)
    compare: CompareOptions = field(default_factory=CompareOptions)


def run(options: Options) -> None:
    """The command. Raises ReconError with one line about what stands in the way."""
    options.contents.check()
    open_run(options.run)  # says what is wrong before anything is compared
    if options.out is not None:
        check_report_path(options.out, "--out")
    comparisons = compare_all(options.run, options.with_, options.compare) if options.with_ else []
    target = write_report(options.run, options.out, comparisons, options.contents)
    if not options.quiet:
        print(f"wrote {target} ({target.stat().st_size / 1e6:.1f} MB)")
