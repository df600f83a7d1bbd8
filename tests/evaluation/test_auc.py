"""Both AUC protocols against implementations that share nothing with ours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.evaluation.pose import auc_exact, auc_histogram

ERRORS = st.lists(st.one_of(st.floats(0.001, 60), st.just(float("inf"))), min_size=1, max_size=40, unique=False)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(errors=ERRORS, threshold=st.sampled_from([5, 10, 20, 30]))
def test_exact_auc_is_the_area_under_the_drawn_curve(errors: list[float], threshold: int) -> None:
    finite = sorted(e for e in errors if e < threshold)
    corners_x = [0.0, *finite, threshold]
    corners_y = [0.0, *((i + 1) / len(errors) for i in range(len(finite))), len(finite) / len(errors)]
    area = 0.0
    for i in range(len(corners_x) - 1):  # trapezoids one by one
        area += (corners_x[i + 1] - corners_x[i]) * (corners_y[i + 1] + corners_y[i]) / 2
    assert auc_exact(np.array(errors), threshold) == pytest.approx(area / threshold, abs=1e-9)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(errors=ERRORS, threshold=st.sampled_from([5, 10, 20, 30]))
def test_histogram_auc_is_the_mean_recall_at_whole_degrees(errors: list[float], threshold: int) -> None:
    # numpy's last bin is closed: an error of exactly the threshold would count; measured errors are no integers
    values = [e for e in errors if not float(e).is_integer()] or [0.5]
    recalls = [sum(e < degree for e in values) / len(values) for degree in range(1, threshold + 1)]
    assert auc_histogram(np.array(values), threshold) == pytest.approx(sum(recalls) / threshold, abs=1e-12)
