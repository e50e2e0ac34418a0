import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets import choose_classes, choose_images
from mhc_plugin.datasets.choose import MAX_CANDIDATES, label_patterns
from mhc_plugin.datasets.label_table import LabelTable


def fits(labels, low=2, high=7):
    present = (labels == 1).sum(1)
    return (present >= low) & (present <= high)


def random_labels(n, num_classes, seed, chance=0.25):
    rng = np.random.RandomState(seed)
    return rng.choice([1, 0, -1], (n, num_classes), p=[chance, 0.9 - chance, 0.1]).astype(np.int8)


def quality(labels, chosen, max_images):
    chosen = labels[:, list(chosen)]
    counts = (chosen[fits(chosen)] == 1).sum(0)
    return min(fits(chosen).sum(), max_images), *sorted(counts)


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('max_images', [20, 10_000])
def test_no_exchange_of_a_class_betters_the_choice(seed, max_images):
    labels = random_labels(120, 8, seed)
    chosen = choose_classes(labels, num_classes=4, max_images=max_images, seed=seed)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == 4
    best = quality(labels, chosen, max_images)
    for out, other in itertools.product(chosen, set(range(8)) - set(chosen)):
        assert quality(labels, {*chosen, other} - {out}, max_images) <= best


def test_classes_that_come_together_beat_frequent_ones_that_come_alone():
    labels = np.zeros((60, 4), np.int8)
    labels[:40, 0] = 1
    labels[40:50, 1:3] = 1
    labels[50:, 3] = 1
    assert choose_classes(labels, num_classes=2) == [1, 2]


def test_with_images_enough_the_more_even_classes_win():
    # Classes 0 and 1 leave 30 images, evenly; 2 and 3 also leave 30, of which 20 are asked for.
    labels = np.zeros((200, 4), np.int8)
    labels[:30, :2] = 1
    labels[30:60, 2:] = 1
    labels[60:200, 3] = 1
    labels[60:62, 2] = 1
    assert choose_classes(labels, 2, max_images=20) == [2, 3]
    # An unknown label is no label.
    labels[60:62, 2] = -1
    labels[30:33, 2] = -1
    assert choose_classes(labels, 2, max_images=20) == [0, 1]


def test_choice_does_not_depend_on_the_order_of_images():
    labels = random_labels(200, 9, seed=1)
    shuffled = labels[np.random.RandomState(0).permutation(200)]
    assert choose_classes(labels, 4, seed=3) == choose_classes(shuffled, 4, seed=3)


def test_rare_classes_among_many_are_passed_over():
    labels = np.zeros((500, MAX_CANDIDATES + 40), np.int8)
    labels[:400, -3:] = 1
    labels[400:, : MAX_CANDIDATES + 30] = random_labels(100, MAX_CANDIDATES + 30, 0, chance=0.02)
    num_classes = labels.shape[1]
    assert choose_classes(labels, 3) == list(range(num_classes - 3, num_classes))


def test_arguments_of_choosing_classes_are_checked():
    labels = np.eye(3, dtype=np.int8)[:2]
    for num_classes in (0, 3):
        with pytest.raises(ValueError, match=rf'in 1\.\.2, .* got {num_classes}'):
            choose_classes(labels, num_classes)
    with pytest.raises(ValueError, match=r'shape \(images, classes\), but got \(3,\)'):
        choose_classes(np.ones(3), 1)


@pytest.mark.parametrize(
    'choose', [lambda labels, **limits: choose_classes(labels, 2, **limits), choose_images]
)
def test_limits_are_checked(choose):
    labels = random_labels(20, 4, 0)
    for limits, message in (
        (dict(min_labels=-1), '`min_labels` to be an int of at least 0, but got -1'),
        (dict(min_labels=3, max_labels=2), '`max_labels` to be an int of at least 3, but got 2'),
        (dict(max_images=0), '`max_images` to be an int of at least 1, but got 0'),
    ):
        with pytest.raises(ValueError, match=message):
            choose(labels, **limits)


def test_all_images_that_fit_are_taken_where_there_are_few():
    labels = random_labels(100, 6, 0)
    expected = np.flatnonzero(fits(labels, 2, 3))
    for limit in (None, len(expected), len(expected) + 1):
        np.testing.assert_array_equal(
            choose_images(labels, limit, min_labels=2, max_labels=3), expected
        )
    np.testing.assert_array_equal(
        choose_images(labels, None, min_labels=1, max_labels=None),
        np.flatnonzero(fits(labels, 1, 6)),
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(0, 3))
def test_chosen_images_fit_and_are_as_many_as_can_be(seed, max_images, min_labels):
    labels = random_labels(80, 5, seed)
    rows = choose_images(labels, max_images, min_labels, 4, seed)
    possible = fits(labels, min_labels, 4)
    assert len(set(rows.tolist())) == len(rows) == min(max_images, possible.sum())
    assert possible[rows].all()
    assert (np.diff(rows) > 0).all()


def test_choice_is_even_where_that_can_be():
    # Each pair of six classes forty times, but class 0 is in 500 more images: 10 of each pair do.
    pairs = [pair for pair in itertools.combinations(range(6), 2) for _ in range(40)]
    pairs += [(0, 1 + i % 5) for i in range(500)]
    labels = np.zeros((len(pairs), 6), np.int8)
    labels[np.arange(len(pairs))[:, None], pairs] = 1
    for max_images in (30, 90, 150):
        counts = labels[choose_images(labels, max_images)].sum(0)
        assert counts.tolist() == [max_images // 3] * 6


@pytest.mark.parametrize('seed', range(8))
def test_the_rarest_class_gets_nearly_as_much_as_the_best_choice_gives_it(seed):
    labels = random_labels(14, 4, seed, chance=0.4)
    labels = labels[fits(labels)]
    if len(labels) < 6:
        labels = np.tile(labels, (3, 1))
    rows = choose_images(labels, 5, seed=seed)
    best = max(
        ((labels[list(choice)] == 1).sum(0).min(), -(labels[list(choice)] == 1).sum(0).var())
        for choice in itertools.combinations(range(len(labels)), 5)
    )
    assert (labels[rows] == 1).sum(0).min() >= best[0] - 1


def test_rare_classes_are_taken_whole():
    labels = random_labels(2000, 6, 0, chance=0.3)
    labels[labels[:, 0] == 1, 0] = 0
    labels[:20, 0] = labels[:20, 1] = 1
    labels[:20, 2:] = 0
    assert set(range(20)) <= set(choose_images(labels, 300).tolist())


def test_images_without_classes_come_last():
    labels = np.zeros((10, 2), np.int8)
    labels[4:7] = 1
    assert set(choose_images(labels, 5, min_labels=0).tolist()) > {4, 5, 6}


def test_seed_decides_and_nothing_else():
    labels = random_labels(3000, 6, 0)
    first = choose_images(labels, 100, seed=1)
    np.testing.assert_array_equal(first, choose_images(labels, 100, seed=1))
    assert set(first.tolist()) != set(choose_images(labels, 100, seed=2).tolist())
    # The stream is frozen: the same on any machine.
    assert choose_images(labels[:60], 5, seed=0).tolist() == [25, 28, 43, 51, 55]


def test_tables_and_matrices_are_the_same():
    labels = random_labels(300, 7, 0)
    for fill in (0, -1):
        table = LabelTable.from_dense(labels, fill)
        assert choose_classes(table, 4) == choose_classes(labels, 4)
        np.testing.assert_array_equal(choose_images(table, 50), choose_images(labels, 50))


def test_memory_grows_with_labels_and_not_with_images_times_classes():
    rng = np.random.RandomState(0)
    rows = np.repeat(np.arange(20_000), 5)
    classes = np.sort(rng.randint(0, 601, (20_000, 5)), axis=1).ravel().astype(np.int16)
    table = LabelTable(
        np.searchsorted(rows, np.arange(20_001)), classes, np.ones(len(rows), np.int8), 601, -1
    )
    table.take(np.arange(10))  # what is imported at the first call does not count
    tracemalloc.start()
    chosen = choose_images(table, 500)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(chosen) == 500
    # As a matrix, labels alone take 12 MB.
    assert peak < 6e6


def test_patterns_are_the_distinct_sets_of_classes():
    labels = random_labels(500, 6, 0)
    patterns, pattern_of = label_patterns(LabelTable.from_dense(labels, -1), np.arange(500))
    assert len(patterns) == len(np.unique(labels == 1, axis=0))
    np.testing.assert_array_equal(patterns.dense()[pattern_of], labels == 1)


@pytest.mark.real_data
def test_the_classes_for_the_development_data_are_those_that_leave_most_images(data_root):
    """The independent count goes through every ten of the classes that there are."""
    from mhc_plugin.datasets import VOCSubset

    voc = VOCSubset(str(data_root / 'VOCdevkit/VOC2012'), 'trainval')
    labels = voc.data_list.labels.dense()
    chosen = choose_classes(labels, num_classes=10, min_labels=2, max_labels=7, max_images=10_000)
    assert [voc.CLASSES[i] for i in chosen] == [
        'bottle',
        'car',
        'cat',
        'chair',
        'cow',
        'dog',
        'horse',
        'person',
        'sheep',
        'sofa',
    ]
    there = np.flatnonzero((labels == 1).any(0))
    present, images = np.unique(labels == 1, axis=0, return_counts=True)
    best = max(
        images[fits(present[:, list(ten)].astype(int))].sum()
        for ten in itertools.combinations(there, 10)
    )
    assert quality(labels, chosen, 10_000)[0] == best == 428
