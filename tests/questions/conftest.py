"""Property tests run without deadlines (shared, slow machines) and repeat the same examples in every run."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("questions", deadline=None, derandomize=True, database=None)
settings.load_profile("questions")
