"""Features that a chunk cannot hold are refused when they come."""

import pytest
import torch
from test_entry_files import features_of, make_layout

from mhc_plugin.features.store import ChunkBuffer


def test_value_that_float16_cannot_hold_is_an_error():
    chunk = ChunkBuffer(make_layout(), 1)
    features = features_of(chunk.rows)
    features[1][2, 0, 0, 0] = -70000.0
    with pytest.raises(
        ValueError,
        match=r'A feature of image 1 is 70000, but float16 holds 65504 '
        r'at most. Store float32 instead: `--storage fp32`.',
    ):
        chunk.append(features, [{}] * 4)
    ChunkBuffer(make_layout('fp32'), 1).append(features, [{}] * 4)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('storage', ['fp16', 'fp32'])
def test_features_that_are_not_finite_are_an_error(value, storage):
    chunk = ChunkBuffer(make_layout(storage), 0)
    features = features_of(chunk.rows)
    features[2][3, 4] = value
    with pytest.raises(ValueError, match='The backbone gives NaN or infinity for image 3'):
        chunk.append(features, [{}] * 4)


def test_features_of_another_shape_are_an_error():
    chunk = ChunkBuffer(make_layout(), 0)
    chunk.append(features_of([0, 1]), [{}] * 2)
    empty, _, vectors = features_of([2])
    with pytest.raises(
        ValueError,
        match=r'Expected features of shape \(3, 2, 2\) per image, as '
        r'the first image has, but got \(3, 4, 4\) for image 2',
    ):
        chunk.append((empty, torch.zeros(1, 3, 4, 4), vectors), [{}])
