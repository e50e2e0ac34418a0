import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mhc_plugin.datasets import label_table
from mhc_plugin.datasets.label_table import BoxTable, LabelBuilder, LabelTable

MATRICES = st.tuples(st.integers(0, 8), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 1))
)


@settings(max_examples=200, deadline=None)
@given(MATRICES, st.sampled_from([0, -1]))
def test_a_table_says_what_its_matrix_says(matrix, fill):
    table = LabelTable.from_dense(matrix, fill)
    assert len(table) == len(matrix)
    assert len(table.values) == (matrix != fill).sum()
    np.testing.assert_array_equal(table.dense(), matrix)
    np.testing.assert_array_equal(table.num_positives(), (matrix == 1).sum(1))
    for value in (1, 0, -1):
        np.testing.assert_array_equal(table.count(value), (matrix == value).sum(0))
    for i, row in enumerate(matrix):
        np.testing.assert_array_equal(table.row(i), row)
        np.testing.assert_array_equal(table.positives(i), np.flatnonzero(row == 1))


@settings(max_examples=200, deadline=None)
@given(MATRICES, st.sampled_from([0, -1]), st.data())
def test_rows_and_classes_are_chosen_in_any_order(matrix, fill, data):
    table = LabelTable.from_dense(matrix, fill)
    count, num_classes = matrix.shape
    rows = data.draw(st.lists(st.integers(0, count - 1), max_size=10)) if count else []
    classes = data.draw(
        st.permutations(range(num_classes)).map(
            lambda order: order[: data.draw(st.integers(1, num_classes))]
        )
    )
    np.testing.assert_array_equal(table.take(rows).dense(), matrix[rows])
    np.testing.assert_array_equal(table.select_classes(classes).dense(), matrix[:, classes])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 1)), max_size=30),
    st.permutations(range(6)),
    st.sets(st.integers(0, 5)),
    st.integers(1, 4),
)
def test_a_builder_lets_present_beat_absent_and_leaves_rows_out(labels, order, out, step):
    row_of = np.full(6, -1, np.int32)
    kept = [row for row in order if row not in out]
    row_of[kept] = np.arange(len(kept))
    builder = LabelBuilder(4)
    for start in range(0, len(labels), step):
        rows, classes, values = np.array(labels[start : start + step]).T
        builder.add(rows.astype(np.int32), classes.astype(np.int16), values.astype(np.int8))
    expected = np.full((len(kept), 4), -1)
    for row, c, value in labels:
        if row not in out:
            expected[row_of[row], c] = max(expected[row_of[row], c], value)
    table, left_out = builder.build(row_of)
    np.testing.assert_array_equal(table.dense(), expected)
    assert left_out == sum(row in out for row, _, _ in labels)


def test_parts_join_without_a_seam(monkeypatch):
    rng = np.random.RandomState(0)
    rows, classes, values = rng.randint(0, 50, 400), rng.randint(0, 7, 400), rng.randint(0, 2, 400)
    row_of = np.where(np.arange(50) % 5, np.arange(50) // 5 * 4 + np.arange(50) % 5 - 1, -1)
    tables = []
    for step in (1 << 19, 7):
        monkeypatch.setattr(label_table, '_STEP', step)
        builder = LabelBuilder(7)
        builder.add(rows, classes, values)
        table, _ = builder.build(row_of)
        tables.append((table.dense(), table.count(1), table.count(-1)))
    for whole, parts in zip(*tables):
        np.testing.assert_array_equal(whole, parts)


def test_a_builder_grows_beyond_its_first_size():
    builder = LabelBuilder(2)
    rows = np.arange(200_000, dtype=np.int32)
    for part in np.split(rows, 4):
        builder.add(part, part % 2, (part % 3 == 0).astype(np.int8))
    table, _ = builder.build(rows)
    np.testing.assert_array_equal(table.values, rows % 3 == 0)
    np.testing.assert_array_equal(table.classes, rows % 2)


def test_a_million_images_take_some_ten_megabytes():
    rows = np.repeat(np.arange(1_000_000, dtype=np.int32), 3)
    builder = LabelBuilder(601)
    builder.add(
        rows, np.tile(np.array([5, 90, 600], np.int16), 1_000_000), np.ones(len(rows), np.int8)
    )
    table, _ = builder.build(np.arange(1_000_000, dtype=np.int32))
    size = table.offsets.nbytes + table.classes.nbytes + table.values.nbytes
    assert size < 20e6
    assert table.positives(999_999).tolist() == [5, 90, 600]


def test_boxes_of_chosen_images():
    table = BoxTable(
        offsets=np.array([0, 2, 2, 3]),
        corners=np.arange(12, dtype=np.float32).reshape(3, 4),
        classes=np.array([4, 5, 6], np.int16),
        difficult=np.array([False, True, False]),
        normalized=False,
    )
    chosen = table.take(np.array([2, 1, 0]))
    assert chosen.offsets.tolist() == [0, 1, 1, 3]
    corners, classes, difficult = chosen.of(2)
    assert corners.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert classes.tolist() == [4, 5]
    assert classes.dtype == np.int64
    assert difficult.tolist() == [False, True]
    assert [len(part) for part in chosen.of(1)] == [0, 0, 0]


@pytest.mark.parametrize('fill', [0, -1])
def test_an_empty_table(fill):
    table = LabelTable.from_dense(np.empty((0, 3), np.int8), fill)
    assert table.dense().shape == (0, 3)
    assert table.take(np.empty(0, np.int64)).dense().shape == (0, 3)
    assert table.count(-1).tolist() == [0, 0, 0]


@pytest.mark.parametrize('fill', [0, -1])
def test_what_is_worked_on_in_parts_is_the_same_as_whole(monkeypatch, fill):
    labels = np.random.RandomState(0).choice([1, 0, -1], (50, 6)).astype(np.int8)
    labels[::7] = fill
    for rows in (1, 7, 1 << 13):
        monkeypatch.setattr(label_table, '_ROWS', rows)
        table = LabelTable.from_dense(labels, fill)
        np.testing.assert_array_equal(table.num_positives(), (labels == 1).sum(1))
        np.testing.assert_array_equal(table.only_positives().dense(), labels == 1)
        order = np.random.RandomState(1).permutation(50)
        np.testing.assert_array_equal(table.take(order).dense(), labels[order])
        np.testing.assert_array_equal(table.part(5, 20).dense(), labels[5:20])
        np.testing.assert_array_equal(table.select_classes([4, 0, 2]).dense(), labels[:, [4, 0, 2]])
        members = table.only_positives().rows_by_class()
        assert [rows.tolist() for rows in members] == [
            np.flatnonzero(column == 1).tolist() for column in labels.T
        ]
