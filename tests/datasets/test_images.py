import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.structures import DataSample

from mhc_plugin.datasets.images import ImagePipeline, batches, flip_views, list_images, read_image
from mhc_plugin.datasets.images import test_dataset as find_test_dataset

PACK = dict(type='PackInputs')


@pytest.fixture
def folder(tmp_path, make_image):
    for name in ('b.jpg', 'a.PNG', 'sub/c.jpeg'):
        make_image(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('no image')
    return tmp_path


def config(pipeline, **dataset):
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline, **dataset))))


def names(paths, folder):
    return [path.removeprefix(f'{folder}/') for path in paths]


def test_folders_patterns_files_and_arrays(folder):
    assert names(list_images(folder), folder) == ['a.PNG', 'b.jpg', 'sub/c.jpeg']
    assert names(list_images(f'{folder}/*.jpg'), folder) == ['b.jpg']
    assert names(list_images(f'{folder}/**/*.jp*g'), folder) == ['b.jpg', 'sub/c.jpeg']
    assert list_images(folder / 'b.jpg') == [f'{folder}/b.jpg']
    array = np.zeros((2, 2, 3), np.uint8)
    assert list_images(array)[0] is array
    mixed = list_images([f'{folder}/sub', array, 'missing.jpg'])
    assert names(mixed[:1], folder) == ['sub/c.jpeg']
    assert mixed[1] is array
    assert mixed[2] == 'missing.jpg'


def test_brackets_in_the_name_of_a_file_are_no_pattern(tmp_path, make_image):
    path = make_image(tmp_path / 'a[1].png')
    assert list_images(path) == [str(path)]


@pytest.mark.parametrize(
    ('inputs', 'words'),
    [('empty', 'no image in folder'), ('*.jpg', r'no image in pattern .*\*\.jpg')],
)
def test_nothing_found_is_an_error(tmp_path, inputs, words):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=words):
        list_images(tmp_path / inputs)


def test_reading_gives_bgr(folder):
    pixels = read_image(str(folder / 'a.PNG'))
    np.testing.assert_array_equal(pixels, cv2.imread(str(folder / 'a.PNG')))
    grey = np.full((4, 5), 7, np.uint8)
    np.testing.assert_array_equal(read_image(grey), np.full((4, 5, 3), 7))
    np.testing.assert_array_equal(read_image(grey[:, :, None]), np.full((4, 5, 3), 7))


@pytest.mark.parametrize(
    'array', [np.zeros((4, 5, 3)), np.zeros((4, 5, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(ValueError, match=r'uint8 array of shape .* but got (float64|uint8) \(4'):
        read_image(array)


def test_unreadable_files_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r'no image file .*missing\.jpg'):
        read_image(f'{folder}/missing.jpg')
    with pytest.raises(ValueError, match=r'notes\.txt cannot be read as an image'):
        read_image(f'{folder}/notes.txt')
    (folder / 'b.jpg').write_bytes((folder / 'b.jpg').read_bytes()[:40])
    with pytest.raises(ValueError, match=r'b\.jpg cannot be read as an image'):
        read_image(f'{folder}/b.jpg')


def test_pipeline_prepares_files_as_the_test_pipeline_does(folder):
    from mmengine.dataset import Compose
    from mmpretrain.registry import TRANSFORMS

    steps = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(16, 12)), PACK]
    path = f'{folder}/b.jpg'
    expected = Compose([TRANSFORMS.build(step) for step in steps])(dict(img_path=path))
    prepared = ImagePipeline(config(steps))(path)
    assert torch.equal(prepared['inputs'], expected['inputs'])
    assert prepared['data_samples'].img_path == path
    assert (
        'img_path'
        not in ImagePipeline(config(steps))(np.zeros((4, 4, 3), np.uint8))['data_samples']
    )


def test_loading_under_a_scope_is_taken_out_too(folder):
    steps = [dict(type='mmpretrain.LoadImageFromFile'), PACK]
    assert len(ImagePipeline(config(steps)).steps) == 1


def test_composites_give_way_to_whole_images(folder):
    steps = [dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))]
    pipeline = ImagePipeline(config(steps, grid=(2, 3), tile_size=16))
    assert pipeline(f'{folder}/b.jpg')['inputs'].shape == (3, 32, 48)


def test_pipeline_inside_wrappers_is_found():
    inner = dict(type='CustomDataset', pipeline=[PACK])
    for dataset in (
        dict(type='RepeatDataset', dataset=inner),
        dict(type='ConcatDataset', datasets=[inner, inner]),
    ):
        cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
        assert find_test_dataset(cfg).type == 'CustomDataset'


@pytest.mark.parametrize(
    'cfg', [dict(), dict(test_dataloader=None), dict(test_dataloader=dict(dataset=dict(type='A')))]
)
def test_config_without_test_pipeline(cfg):
    with pytest.raises(ValueError, match='`test_dataloader` with a pipeline'):
        ImagePipeline(Config(cfg))


def test_views_are_the_image_and_its_mirror_image(folder):
    prepared = ImagePipeline(config([dict(type='LoadImageFromFile'), PACK]), tta=True)(
        f'{folder}/b.jpg'
    )
    plain, mirrored = prepared['inputs']
    assert torch.equal(mirrored, plain.flip(2))


def test_views_of_the_config_come_first(folder):
    cfg = config([PACK])
    cfg.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        *flip_views([PACK])[:-1],
        dict(type='TestTimeAug', transforms=[[PACK], [PACK], [PACK]][:1]),
    ]
    assert len(ImagePipeline(cfg, tta=True)(f'{folder}/b.jpg')['inputs']) == 1


def packed(*sizes):
    return [dict(inputs=torch.zeros(3, size, size), data_samples=DataSample()) for size in sizes]


def test_batches_end_where_sizes_change():
    shapes = [batch['inputs'].shape[::2] for batch in batches(packed(4, 4, 4, 6, 4), 2)]
    assert [tuple(shape) for shape in shapes] == [(2, 4), (1, 4), (1, 6), (1, 4)]
    assert list(batches([], 2)) == []
