import math

import pytest
import torch
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation.class_map_results import (
    check_size,
    input_size,
    log_per_class,
    mean_per_class,
    read_maps,
    summarise,
)


@pytest.mark.parametrize('size', [7, (4,), (4, 0), (4, 2.5), (1, 2, 3)])
def test_wrong_size(size):
    with pytest.raises(ValueError, match=r'`size` to be \(height, width\) in pixels or None'):
        check_size(size)


def test_size():
    assert check_size(None) is None
    assert check_size([4, 6]) == (4, 6)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(), 'with class maps in `pred_cam`, but got one without'),
        (dict(pred_cam=torch.full((2, 3, 3), math.nan)), '`maps` to be finite'),
        (dict(pred_cam=torch.ones(2, 3, 3), pred_score=torch.rand(3)), 'all 3 classes, but got 2'),
    ],
)
def test_samples_without_fitting_maps(fields, message):
    with pytest.raises(ValueError, match=message):
        read_maps(fields)


def test_maps_are_resized_to_the_size_that_is_given_or_to_the_image():
    sample = DataSample(metainfo=dict(img_shape=(6, 8)))
    for data_sample in (sample, sample.to_dict(), dict(img_shape=(6, 8, 3))):
        assert input_size(data_sample, None) == (6, 8)
        assert input_size(data_sample, (3, 5)) == (3, 5)
    with pytest.raises(ValueError, match='with `img_shape`, but got one without'):
        input_size({}, None)


def test_summary():
    values = torch.tensor([0.0, 0.2, 0.4, 1.0], dtype=torch.float64)
    chance = torch.tensor([0.25, 0.25, 0.25, 0.5], dtype=torch.float64)
    result = summarise('x', values, chance, torch.tensor([True, False, False, False]), True)
    assert result == pytest.approx(
        dict(x=40, x_chance=31.25, x_q25=15, x_median=30, x_q75=55, x_num_maps=4, x_num_empty=1)
    )
    short = summarise('x', values, chance, torch.zeros(4, dtype=torch.bool), False)
    assert set(result) - set(short) == {'x_q25', 'x_median', 'x_q75'}
    nothing = summarise('x', values[:0], chance[:0], torch.zeros(0, dtype=torch.bool), True)
    assert nothing == pytest.approx(
        dict.fromkeys(result, math.nan) | dict(x_num_maps=0, x_num_empty=0), nan_ok=True
    )


def test_mean_per_class():
    values = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
    assert mean_per_class(values, torch.tensor([2, 2, 0]), 3) == pytest.approx(
        [100, math.nan, 20], nan_ok=True
    )


def test_table(log):
    log_per_class(
        'x',
        dict(
            x=40.0, x_chance=25.0, x_classwise=[40.0, math.nan], x_chance_classwise=[25.0, math.nan]
        ),
        dict(classes=['[red]cat', 'dog']),
    )
    rows = [
        [cell.strip() for cell in line.strip('│').split('│')]
        for line in log().splitlines()
        if line.startswith('│')
    ]
    assert rows == [
        ['[red]cat', '40.00', '25.00'],
        ['dog', '-', '-'],
        ['all maps', '40.00', '25.00'],
    ]
