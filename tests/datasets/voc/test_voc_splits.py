"""Files of splits, however damaged, give names or an error of ours."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mhc_plugin.datasets import AnnotationError
from mhc_plugin.datasets.voc.subset import read_split

SPLITS = st.one_of(
    st.binary(max_size=100),
    st.lists(
        st.sampled_from(
            [
                'a',
                '2008_000001',
                ' ',
                '\t',
                '\n',
                '\r\n',
                '1',
                '-1',
                '0',
                '..',
                '/',
                '\x00',
                '\ufeff',
                'é',
                'x' * 300,
            ]
        ),
        max_size=30,
    ).map(lambda pieces: ''.join(pieces).encode()),
)
FUZZ = dict(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check_damaged(path, content):
    path.write_bytes(content)
    with suppress(AnnotationError):
        for name in read_split(path):
            assert name
            assert '/' not in name


@settings(max_examples=300, **FUZZ)
@given(content=SPLITS)
def test_damaged_splits_end_in_errors_of_ours(tmp_path, content):
    check_damaged(tmp_path / 'a.txt', content)


@pytest.mark.fuzz
@settings(max_examples=10_000, **FUZZ)
@given(content=SPLITS)
def test_damaged_splits_end_in_errors_of_ours_ten_thousand_times(tmp_path, content):
    check_damaged(tmp_path / 'a.txt', content)
