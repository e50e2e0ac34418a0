import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets.openimages.image_index import ImageIndex, encode_names

NAMES = st.text('ab09_é', min_size=1, max_size=5)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(NAMES, min_size=1, max_size=20, unique=True), max_size=12))
def test_positions_are_those_of_a_dict(batches):
    index, expected = ImageIndex(), {}
    for batch in batches:
        known = len(expected)
        positions = dict(zip(batch, index.positions(batch).tolist()))
        for name in batch:
            if name in expected:
                assert positions[name] == expected[name]
        new = {name: positions[name] for name in batch if name not in expected}
        assert sorted(new.values()) == list(range(known, known + len(new)))
        expected.update(new)
    assert len(index) == len(expected)
    names, positions = index.names()
    assert [name.decode() for name in names] == sorted(expected, key=str.encode)
    assert [expected[name.decode()] for name in names] == positions.tolist()


def test_sorted_and_unsorted_batches_keep_few_runs():
    rng = np.random.RandomState(0)
    ids = [f'{i:016x}' for i in range(5000)]
    for order in (np.arange(5000), rng.permutation(5000)):
        index = ImageIndex()
        for part in np.split(order, 100):
            index.positions([ids[i] for i in part])
        assert len(index._runs) <= np.log2(100) + 1
        assert [name.decode() for name in index.names()[0]] == ids


def test_no_names():
    assert len(ImageIndex().names()[0]) == 0


def test_names_that_were_not_utf8_are_refused():
    with pytest.raises(UnicodeEncodeError):
        encode_names([b'\xff'.decode(errors='surrogateescape')])
