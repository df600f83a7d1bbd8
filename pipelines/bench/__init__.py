"""``vlm3-recon bench``: how fast this machine is."""

from pipelines.bench.engine import Options, run

__all__ = ["Options", "run"]
