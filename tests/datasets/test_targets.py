"""Targets in the form that losses and metrics read."""

import numpy as np

from mhc_plugin.datasets.targets import target_scores


def test_scores_are_one_zero_and_minus_one():
    scores = target_scores(5, positives=[3, 0], unknown=[4])
    assert scores.dtype == np.float32
    assert scores.tolist() == [1, 0, 0, 1, -1]


def test_an_image_may_have_no_class_at_all():
    assert target_scores(3, positives=[]).tolist() == [0, 0, 0]
