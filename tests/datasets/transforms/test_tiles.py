"""Tiles of every kind of file in their places, and a flip that takes cells and boxes along."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import RandomFlip
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS
from PIL import Image

from mhc_plugin.datasets import ComposeTiles
from mhc_plugin.utils.seeding import seeded


def compose(tiles, cells, tile_size, **kwargs):
    transform = TRANSFORMS.build(dict(type='ComposeTiles', **kwargs))
    return transform(dict(tiles=tiles, gt_cells=torch.tensor(cells), tile_size=tile_size))


def smooth_rgb(seed=0, size=(40, 30)):
    """A smooth picture (width, height), which JPEG keeps to a few grey levels."""
    coarse = np.random.RandomState(seed).randint(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))


def test_tiles_lie_row_by_row():
    arrays = [np.full((5, 7), value, dtype=np.uint8) for value in (10, 20, 30, 40, 50, 60)]
    results = compose([dict(img=a) for a in arrays], [[0, 1, 2], [3, 4, 5]], tile_size=4)
    img = results['img']
    assert img.dtype == np.uint8
    assert img.shape == (8, 12, 3)
    assert results['img_shape'] == results['ori_shape'] == (8, 12)
    for row in range(2):
        for column in range(3):
            tile = img[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert (tile == 10 * (3 * row + column + 1)).all()


@pytest.mark.parametrize('shape', [(6, 6), (6, 6, 1), (6, 6, 3)])
def test_arrays_are_grey_or_rgb(shape):
    array = np.random.RandomState(0).randint(0, 256, shape, dtype=np.uint8)
    img = compose([dict(img=array)], [[0]], tile_size=6)['img']
    rgb = np.broadcast_to(array.reshape(6, 6, -1), (6, 6, 3))
    assert np.array_equal(img, rgb[:, :, ::-1])


@pytest.mark.parametrize(
    'array', [np.zeros((4, 4), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_other_arrays_are_refused(array):
    with pytest.raises(ValueError, match=r'to be uint8 of shape \(h, w\), .*but got'):
        compose([dict(img=array)], [[0]], tile_size=4)


def save_plain(path, image):
    image.save(path)


def save_grey(path, image):
    image.convert('L').save(path)


def save_cmyk(path, image):
    image.convert('CMYK').save(path, quality=95)


def save_palette(path, image):
    image.convert('P', palette=Image.Palette.ADAPTIVE).save(path)


def save_alpha(path, image):
    image.convert('RGBA').save(path)


def save_rotated(path, image):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
    image.save(path, exif=exif.tobytes(), quality=95)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize(
    ('name', 'save'),
    [
        ('plain.jpg', save_plain),
        ('plain.png', save_plain),
        ('plain.bmp', save_plain),
        ('grey.jpg', save_grey),
        ('grey.png', save_grey),
        ('cmyk.jpg', save_cmyk),
        ('palette.png', save_palette),
        ('alpha.png', save_alpha),
        ('rotated.jpg', save_rotated),
    ],
)
def test_files_of_every_kind_read_as_upright_rgb(tmp_path, backend, name, save):
    image = smooth_rgb(size=(32, 32))
    path = tmp_path / name
    save(path, image)
    img = compose([dict(img_path=str(path))], [[0]], tile_size=32, imdecode_backend=backend)['img']
    if save is save_grey:
        image = image.convert('L').convert('RGB')
    if save is save_rotated:
        image = image.transpose(Image.Transpose.ROTATE_270)
    difference = img[:, :, ::-1].astype(int) - np.asarray(image)
    # JPEG, CMYK and a palette of 256 colours lose a little; a swapped channel or side, 50.
    assert np.abs(difference).mean() < 6


def test_every_tile_is_resized_to_the_square(tmp_path):
    path = tmp_path / 'wide.png'
    smooth_rgb(size=(60, 20)).save(path)
    img = compose([dict(img_path=str(path))], [[0]], tile_size=10)['img']
    expected = cv2.resize(cv2.imread(str(path)), (10, 10), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(img, expected)
    nearest = compose([dict(img_path=str(path))], [[0]], 10, interpolation='nearest')['img']
    assert not np.array_equal(img, nearest)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('content', [b'', b'no image', 'truncated'])
def test_an_unreadable_tile_is_named(tmp_path, backend, content):
    path = tmp_path / 'broken.jpg'
    if content == 'truncated':
        smooth_rgb().save(path)
        content = path.read_bytes()[:200]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"Expected tile '.*broken\.jpg' to be an image"):
        compose([dict(img_path=str(path))], [[0]], tile_size=8, imdecode_backend=backend)


def test_a_missing_tile_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Expected tile '.*gone\.jpg' to exist"):
        compose([dict(img_path=str(tmp_path / 'gone.jpg'))], [[0]], tile_size=8)


def test_repr_names_the_options():
    assert repr(ComposeTiles(interpolation='area')) == (
        "ComposeTiles(imdecode_backend='cv2', interpolation='area', backend_args=None)"
    )


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
    results = flip(direction=direction)(compose_arrays(tiles, cells))
    axes = {'horizontal': (1,), 'vertical': (0,), 'diagonal': (0, 1)}[direction]
    # Both the order of the tiles and each tile are mirrored.
    mirrored = np.flip(np.flip(tiles, axes), [axis + 2 for axis in axes])
    expected = compose_arrays(mirrored, torch.from_numpy(np.flip(cells.numpy(), axes).copy()))
    assert np.array_equal(results['img'], expected['img'])
    assert torch.equal(results['gt_cells'], expected['gt_cells'])


def compose_arrays(tiles, cells):
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
