"""Dealing classes and images: distinct, even, frozen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets.splices.spliced import plan_splices


@st.composite
def splices(draw):
    pools = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    num_cells = draw(st.integers(1, len(pools)))
    return pools, num_cells, draw(st.integers(1, 60)), draw(st.integers(0, 2**32 - 1))


@settings(max_examples=150, deadline=None)
@given(splices())
def test_classes_of_a_composite_are_distinct(case):
    classes, _ = plan_splices(*case)
    assert all(len(set(row)) == len(row) for row in classes.tolist())


@settings(max_examples=150, deadline=None)
@given(splices())
def test_uses_differ_by_at_most_one_at_any_time(case):
    pools, num_cells, length, _ = case
    classes, images = plan_splices(*case)
    for end in range(1, length + 1):
        uses = np.bincount(classes[:end].ravel(), minlength=len(pools))
        assert uses.sum() == end * num_cells
        assert uses.max() - uses.min() <= 1
    for label, num_images in enumerate(pools):
        uses = np.bincount(images[classes == label], minlength=num_images)
        assert len(uses) == num_images
        assert uses.max() - uses.min() <= 1


@settings(max_examples=60, deadline=None)
@given(splices(), st.integers(1, 30))
def test_first_composites_do_not_depend_on_length(case, more):
    pools, num_cells, length, seed = case
    longer = plan_splices(pools, num_cells, length + more, seed)
    for short, long in zip(plan_splices(*case), longer):
        assert np.array_equal(short, long[:length])


def test_a_literal_plan_stays_what_it_is():
    # A change here would change every spliced dataset that was ever reported on.
    classes, images = plan_splices([3, 2, 4, 2, 5], num_cells=4, length=3, seed=7)
    assert classes.tolist() == [[0, 3, 1, 4], [2, 4, 3, 1], [2, 0, 1, 4]]
    assert images.tolist() == [[2, 1, 0, 1], [1, 4, 0, 1], [0, 0, 1, 3]]


def test_seeds_give_different_plans():
    left, right = (plan_splices([9] * 10, 4, 50, seed) for seed in (0, 1))
    assert not np.array_equal(left[0], right[0])
    assert not np.array_equal(left[1], right[1])


@pytest.mark.parametrize('num_cells', [2, 4])
def test_no_pair_and_no_place_is_preferred(num_cells):
    # 12,000 composites of 6 classes: expectations below with a standard deviation near 1 %.
    classes, _ = plan_splices([1] * 6, num_cells, 12000, seed=0)
    present = np.zeros((len(classes), 6))
    np.put_along_axis(present, classes, 1, axis=1)
    together = (present.T @ present)[~np.eye(6, dtype=bool)]
    expected = 12000 * num_cells * (num_cells - 1) / (6 * 5)
    assert np.abs(together / expected - 1).max() < 0.05
    for place in range(num_cells):
        uses = np.bincount(classes[:, place], minlength=6)
        assert np.abs(uses / 2000 - 1).max() < 0.08
