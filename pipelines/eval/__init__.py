"""``vlm3-recon eval``: how good a checkpoint's answers are on labelled photos. Start reading at ``command``."""
