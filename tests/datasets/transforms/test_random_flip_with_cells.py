"""A flip takes cells and boxes along, in training and in test-time augmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import RandomFlip
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS

from mhc_plugin.utils.seeding import seeded

DIRECTIONS = ('horizontal', 'vertical', 'diagonal')


def flip(prob=1.0, direction='horizontal'):
    return TRANSFORMS.build(dict(type='RandomFlipWithCells', prob=prob, direction=direction))


def sample(rows=2, columns=3, tile_size=4):
    """A composite whose every tile is filled with 10 times its class."""
    cells = torch.randperm(rows * columns).reshape(rows, columns)
    img = np.kron(cells.numpy() * 10, np.ones((tile_size, tile_size)))[..., None]
    return dict(img=img.repeat(3, axis=2).astype(np.uint8), gt_cells=cells)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.sampled_from(DIRECTIONS))
def test_flipped_cells_describe_the_flipped_image(rows, columns, tile_size, direction):
    results = flip(direction=direction)(sample(rows, columns, tile_size))
    cells = results['gt_cells']
    assert cells.dtype == torch.int64
    for row in range(rows):
        for column in range(columns):
            pixel = results['img'][row * tile_size, column * tile_size]
            assert (pixel == 10 * cells[row, column].item()).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(DIRECTIONS), st.integers(0, 2**16))
def test_composing_then_flipping_equals_composing_flipped_tiles(rows, columns, direction, seed):
    stream = np.random.RandomState(seed)
    tiles = stream.randint(0, 256, (rows, columns, 5, 5), dtype=np.uint8)
    cells = torch.from_numpy(stream.permutation(rows * columns).reshape(rows, columns))
    results = flip(direction=direction)(compose(tiles, cells))
    axes = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[direction]
    # Both the order of the tiles and each tile are mirrored.
    mirrored = np.flip(np.flip(tiles, axes), [axis + 2 for axis in axes])
    expected = compose(mirrored, torch.from_numpy(np.flip(cells.numpy(), axes).copy()))
    assert np.array_equal(results['img'], expected['img'])
    assert torch.equal(results['gt_cells'], expected['gt_cells'])


def compose(tiles, cells):
    transform = TRANSFORMS.build(dict(type='ComposeTiles', interpolation='nearest'))
    return transform(
        dict(
            tiles=[dict(img=np.ascontiguousarray(tile)) for row in tiles for tile in row],
            tile_size=tiles.shape[2],
            gt_cells=cells,
        )
    )


@pytest.mark.parametrize('direction', DIRECTIONS)
def test_two_flips_restore_everything(direction):
    original = sample()
    transform = flip(direction=direction)
    results = transform(transform({**original}))
    assert np.array_equal(results['img'], original['img'])
    assert torch.equal(results['gt_cells'], original['gt_cells'])


def test_cells_stay_where_nothing_is_flipped():
    original = sample()
    results = flip(prob=0.0)({**original})
    assert results['flip'] is False
    assert torch.equal(results['gt_cells'], original['gt_cells'])


def test_draws_and_results_are_those_of_mmcv():
    arguments = dict(prob=[0.3, 0.3], direction=['horizontal', 'vertical'])
    theirs = RandomFlip(**arguments)
    ours = TRANSFORMS.build(dict(type='RandomFlipWithCells', **arguments))
    boxes = np.array([[1.0, 2.0, 5.0, 7.0]], dtype=np.float32)
    directions = set()
    for draw in range(30):
        with seeded(draw):
            expected = theirs(dict(img=sample()['img'], gt_bboxes=boxes))
        with seeded(draw):
            results = ours(dict(img=sample()['img'], gt_bboxes=boxes))
        directions.add(results['flip_direction'])
        assert results.keys() == expected.keys()
        assert results['flip_direction'] == expected['flip_direction']
        assert np.array_equal(results['img'], expected['img'])
        assert np.array_equal(results['gt_bboxes'], expected['gt_bboxes'])
    assert directions == {None, 'horizontal', 'vertical'}


def test_boxes_in_pixels_follow():
    boxes = np.array([[0.0, 0.0, 4.0, 4.0]], dtype=np.float32)
    results = flip(direction='diagonal')(dict(sample(2, 3, 4), gt_bboxes=boxes))
    assert results['gt_bboxes'].tolist() == [[8.0, 4.0, 12.0, 8.0]]


def test_cells_are_right_in_every_view_of_test_time_augmentation():
    original = sample()
    views = dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='RandomFlipWithCells', prob=p) for p in (0.0, 1.0)],
            [dict(type='PackInputs', algorithm_keys=('gt_cells',))],
        ],
    )
    # mmcv builds the inner transforms in the scope that a Runner sets.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        tta = TRANSFORMS.build(views)
    plain, flipped = tta({**original})['data_samples']
    assert torch.equal(plain.gt_cells, original['gt_cells'])
    assert torch.equal(flipped.gt_cells, original['gt_cells'].flip(1))
