import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mhc_plugin.functional import localisation
from mhc_plugin.functional.checks import check_class_maps
from mhc_plugin.functional.localisation import (
    box_coverage,
    completeness,
    energy_pointing_game,
    grid_pointing_game,
    is_empty,
    map_correlation,
    pointing_game,
    resize_maps,
)

WRONG_MAPS = [
    (torch.full((1, 2, 2), math.nan), '`maps` to be finite'),
    (torch.full((1, 2, 2), math.inf), '`maps` to be finite'),
    (torch.full((1, 2, 2), -0.5), '`maps` to be non-negative, but got -0.5'),
    (torch.ones(2, 2), r'`maps` to have shape \(n, h, w\), but got \(2, 2\)'),
]


@pytest.mark.parametrize(('maps', 'message'), WRONG_MAPS)
def test_maps_that_are_none(maps, message):
    calls = [
        check_class_maps,
        map_correlation,
        lambda m: grid_pointing_game(m, torch.tensor([[0]])),
        lambda m: energy_pointing_game(m, torch.ones_like(m)),
        lambda m: pointing_game(m, torch.ones_like(m)),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(maps)


def test_grid_pointing_resizes_only_the_maps_it_uses(monkeypatch):
    maps = torch.rand(601, 7, 7, generator=torch.Generator().manual_seed(0))
    cells = torch.tensor([[5, 600], [5, 17]])
    expected = grid_pointing_game(resize_maps(maps, (28, 42)), cells)
    resized = []

    def record(some, size):
        resized.append(tuple(some.shape))
        return resize_maps(some, size)

    monkeypatch.setattr(localisation, 'resize_maps', record)
    found = grid_pointing_game(maps, cells, (28, 42))
    assert resized == [(3, 7, 7)]
    for one, other in zip(found, expected):
        assert torch.equal(one, other)


def test_resize_is_bilinear_between_pixel_centres():
    maps = torch.tensor([[[0.0, 1.0]], [[2.0, 2.0]]])
    expected = [[[0, 0.25, 0.75, 1.0]] * 2, [[2.0] * 4] * 2]
    torch.testing.assert_close(
        resize_maps(maps, (2, 4)), torch.tensor(expected, dtype=torch.float64)
    )
    assert resize_maps(maps[:0], (2, 4)).shape == (0, 2, 4)


def test_coverage_of_one_box():
    coverage = box_coverage(torch.tensor([[0.1, 0.5, 0.35, 1.0]]), (4, 10))
    expected = np.outer([0, 0, 1, 1], [0, 1, 1, 0.5, 0, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(coverage.numpy(), expected, atol=1e-6)
    assert coverage.mean().item() == pytest.approx(0.25 * 0.5)


def test_coverage_of_boxes_that_overlap_counts_once():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5]])
    expected = np.outer([1, 1, 0, 0], [1, 1, 1, 0])
    np.testing.assert_array_equal(box_coverage(boxes, (4, 4)).numpy(), expected)


def test_coverage_without_boxes_and_of_the_smallest_ones():
    assert not box_coverage(torch.zeros(0, 4), (3, 3)).any()
    assert not box_coverage(torch.tensor([[0.5, 0.5, 0.5, 0.7]]), (3, 3)).any()
    tiny = box_coverage(torch.tensor([[0.4, 0.4, 0.41, 0.42]], dtype=torch.float64), (3, 3))
    assert tiny.mean().item() == pytest.approx(0.01 * 0.02)


@pytest.mark.parametrize(
    'boxes',
    [
        [[0.5, 0.0, 0.4, 1.0]],
        [[0.0, 0.5, 1.0, 0.4]],
        [[0.0, 0.0, 1.1, 1.0]],
        [[-0.1, 0.0, 1.0, 1.0]],
        [[0.0, 0.0, math.nan, 1.0]],
    ],
)
def test_boxes_that_are_none(boxes):
    with pytest.raises(ValueError, match=r'`boxes` to hold x1 <= x2 and y1 <= y2 in 0..1'):
        box_coverage(torch.tensor(boxes), (4, 4))
    with pytest.raises(ValueError, match=r'`boxes` to have shape \(n, 4\), but got \(4,\)'):
        box_coverage(torch.zeros(4), (4, 4))


def test_grid_by_hand():
    maps = torch.zeros(5, 4, 4)
    maps[3, :2, :2] = 2.0  # all in its own cell, top left
    maps[0, 0, 3], maps[0, 3, 0], maps[0, 2, 2] = 6.0, 1.0, 1.0  # top right is its own
    maps[4] = 0.1  # uniform, bottom left
    maps[2] = 0.0  # empty, bottom right
    maps[1] = 7.0  # not there
    result = grid_pointing_game(maps, torch.tensor([[3, 0], [4, 2]]))
    assert result.classes.tolist() == [0, 2, 3, 4]
    expected = torch.tensor(
        [
            # cells of: 0 (top right), 2 (bottom right), 3 (top left), 4 (bottom left)
            [0.75, 0.125, 0.0, 0.125],
            [0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0],
            [0.25, 0.25, 0.25, 0.25],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(result.shares, expected)
    assert result.chance.tolist() == [0.25] * 4
    assert result.empty.tolist() == [False, True, False, False]


def test_grid_of_another_shape_with_a_class_in_two_cells():
    maps = torch.zeros(2, 2, 6)
    maps[0, :, 0], maps[0, :, 2], maps[0, :, 5] = 1.0, 1.0, 2.0
    maps[1] = 3.0
    result = grid_pointing_game(maps, torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(
        result.shares, torch.tensor([[3 / 4, 1 / 4], [2 / 3, 1 / 3]], dtype=torch.float64)
    )
    torch.testing.assert_close(result.chance, torch.tensor([2 / 3, 1 / 3], dtype=torch.float64))


def test_a_cell_of_no_class_takes_mass_and_has_none():
    maps = torch.ones(3, 2, 2)
    result = grid_pointing_game(maps, torch.tensor([[2, -1], [-1, 0]]), (4, 4))
    assert result.classes.tolist() == [0, 2]
    torch.testing.assert_close(result.shares.diagonal(), torch.full((2,), 0.25).double())
    assert grid_pointing_game(maps, torch.full((2, 2), -1), (4, 4)).shares.shape == (0, 0)


def test_a_border_through_a_pixel_divides_its_mass():
    maps = torch.zeros(4, 5, 5)
    maps[:, 2, 2] = 1.0
    result = grid_pointing_game(maps, torch.tensor([[0, 1], [2, 3]]))
    torch.testing.assert_close(result.shares, torch.full((4, 4), 0.25, dtype=torch.float64))


def test_a_symmetric_map_at_input_resolution_is_at_chance():
    maps = torch.zeros(4, 7, 7)
    maps[:, 3, 3] = 1.0
    result = grid_pointing_game(resize_maps(maps, (224, 224)), torch.tensor([[0, 1], [2, 3]]))
    torch.testing.assert_close(result.shares, torch.full((4, 4), 0.25, dtype=torch.float64))


@pytest.mark.parametrize('cells', [[[0, 5]], [[-2, 0]], [0, 1], [[]]])
def test_cells_that_are_none(cells):
    with pytest.raises(ValueError, match=r'`cells` to have shape \(rows, columns\) .* 0..4'):
        grid_pointing_game(torch.ones(5, 2, 2), torch.tensor(cells))


def test_energy_by_hand():
    maps = torch.zeros(4, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3] = 3.0, 1.0
    maps[1] = 0.3  # uniform
    maps[3, 0, 1] = 1e-30
    mask = box_coverage(torch.tensor([[0.0, 0.0, 0.5, 0.25]]), (4, 4))
    result = energy_pointing_game(maps, mask.expand(4, 4, 4))
    torch.testing.assert_close(result, torch.tensor([0.75, 2 / 16, 0.0, 1.0], dtype=torch.float64))
    assert is_empty(maps).tolist() == [False, False, True, False]


def test_pointing_by_hand():
    maps = torch.zeros(5, 4, 4)
    maps[0, 0, 1], maps[0, 3, 3] = 1.0, 0.99
    maps[1, 0, 1], maps[1, 3, 3] = 0.99, 1.0
    maps[2] = 0.3  # uniform
    maps[4, 0, 0], maps[4, 3, 3] = 1.0, 1.0  # one of two in the box
    mask = box_coverage(torch.tensor([[0.0, 0.0, 0.5, 0.25]]), (4, 4))
    result = pointing_game(maps, mask.expand(5, 4, 4))
    torch.testing.assert_close(
        result, torch.tensor([1.0, 0.0, 2 / 16, 0.0, 0.5], dtype=torch.float64)
    )


@pytest.mark.parametrize('game', [energy_pointing_game, pointing_game])
@pytest.mark.parametrize('size', [224, 50])  # at 50 interpolation rounds the map up and down
def test_a_uniform_map_gets_the_share_of_the_area_after_resizing(game, size):
    maps = resize_maps(torch.full((1, 7, 7), 0.3), (size, size))
    mask = box_coverage(torch.tensor([[0.1, 0.2, 0.4, 0.9]]), (size, size))
    assert game(maps, mask.unsqueeze(0)).item() == pytest.approx(0.3 * 0.7, rel=1e-6)


@pytest.mark.parametrize('game', [energy_pointing_game, pointing_game])
def test_no_maps_and_masks_of_another_shape(game):
    assert game(torch.zeros(0, 4, 4), torch.zeros(0, 4, 4)).shape == (0,)
    with pytest.raises(ValueError, match='`masks` to have the shape of `maps`'):
        game(torch.ones(2, 4, 4), torch.ones(4, 4))


def test_correlation_by_hand():
    maps = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 0.0]],
            [[3.0, 1.0], [1.0, 1.0]],
            [[0.0, 1.0], [1.0, 1.0]],
            [[0.0, 1.0], [0.0, 0.0]],
            [[0.1, 0.1], [0.1, 0.1]],
            [[0.0, 0.0], [0.0, 0.0]],
        ]
    )
    result = map_correlation(maps)
    third = 1 / 3
    expected = torch.tensor(
        [
            [1, 1, -1, -third, 0, 0],
            [1, 1, -1, -third, 0, 0],
            [-1, -1, 1, third, 0, 0],
            [-third, -third, third, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(result, expected)


maps_strategy = arrays(
    np.float64,
    st.tuples(st.integers(2, 4), st.integers(1, 5), st.integers(1, 5)),
    elements=st.one_of(st.just(0.0), st.floats(1e-3, 1e3)),
).map(torch.tensor)


@given(maps_strategy)
@settings(deadline=None)
def test_correlation_equals_numpy(maps):
    result = map_correlation(maps)
    for i in range(len(maps)):
        for j in range(len(maps)):
            a, b = maps[i].flatten().numpy(), maps[j].flatten().numpy()
            if np.ptp(a) > 1e-6 * a.max() and np.ptp(b) > 1e-6 * b.max():
                assert result[i, j].item() == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-6)
            elif np.ptp(a) == 0 or np.ptp(b) == 0:
                assert result[i, j] == 0


@given(maps_strategy, st.integers(1, 3), st.integers(1, 3), st.floats(1e-3, 1e3))
@settings(deadline=None)
def test_grid_shares_sum_to_one_and_know_no_scale(maps, rows, columns, scale):
    cells = torch.arange(rows * columns).reshape(rows, columns) % len(maps)
    result = grid_pointing_game(maps, cells)
    sums = torch.where(result.empty, 0.0, 1.0).double()
    torch.testing.assert_close(result.shares.sum(1), sums)
    torch.testing.assert_close(result.chance.sum(), torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(grid_pointing_game(scale * maps, cells).shares, result.shares)
    flipped = grid_pointing_game(maps.flip(2), cells.flip(1))
    torch.testing.assert_close(flipped.shares, result.shares)


@given(maps_strategy)
@settings(deadline=None)
def test_the_whole_image_as_box_catches_all(maps):
    masks = box_coverage(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), maps.shape[1:]).expand_as(maps)
    expected = torch.where(is_empty(maps), 0.0, 1.0).double()
    torch.testing.assert_close(energy_pointing_game(maps, masks), expected)
    torch.testing.assert_close(pointing_game(maps, masks), expected)


def test_completeness_is_the_share_of_the_logits_that_maps_account_for():
    logits, bias = torch.tensor([[3.0, -1.0], [5.0, 1.0]]), torch.tensor([1.0, -1.0])
    whole = logits - bias  # 2, 0, 4, 2
    assert completeness(logits, whole, bias) == 1
    assert completeness(logits, torch.zeros(2, 2), bias) == 0
    assert completeness(logits, whole - torch.tensor([[0.0, 0.0], [0.0, 2.0]]), bias) == 0.75
    assert completeness(logits, -whole, bias) == -1
