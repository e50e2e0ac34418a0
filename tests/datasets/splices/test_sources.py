"""Reading single-label datasets, and finding what two of them share."""

import shutil

import numpy as np
import pytest
from mmengine import fileio
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.splices.sources import read_source, same_content, same_name


@DATASETS.register_module()
class ListedForTest(BaseDataset):
    """A dataset that is the list given to it."""

    def __init__(self, infos, **kwargs):
        self.infos = infos
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self):
        return list(self.infos)


def listed(infos, classes=('a', 'b'), **kwargs):
    return dict(type='ListedForTest', infos=infos, classes=classes, **kwargs)


def folder(root, **kwargs):
    return dict(type='CustomDataset', data_root=str(root), **kwargs)


def test_images_come_by_name_whatever_the_order_of_the_source(tmp_path):
    infos = [dict(img_path=f'{tmp_path}/{name}', gt_label=0) for name in ('c', 'a', 'B', 'b/x')]
    for order in (infos, infos[::-1]):
        images, classes = read_source(listed(order, data_prefix=str(tmp_path)))
        assert [image.name for image in images] == ['B', 'a', 'b/x', 'c']
        assert classes == ('a', 'b')


def test_folders_of_classes_are_a_source(tmp_path, make_image):
    make_image(tmp_path / 'cat' / '2.png')
    make_image(tmp_path / 'ant' / '9.png')
    images, classes = read_source(folder(tmp_path))
    assert classes == ('ant', 'cat')
    assert [(image.name, image.label) for image in images] == [('ant/9.png', 0), ('cat/2.png', 1)]


def test_images_in_memory_keep_their_order():
    infos = [dict(img=np.full((2, 2), i, np.uint8), gt_label=np.int64(1)) for i in range(12)]
    images, _ = read_source(listed(infos))
    assert [int(image.tile['img'][0, 0]) for image in images] == list(range(12))
    assert all(image.label == 1 for image in images)


@pytest.mark.parametrize('label', [[0, 1], None, 'cat'])
def test_labels_that_are_not_single_are_refused(label):
    with pytest.raises(ValueError, match='image 0 of ListedForTest has'):
        read_source(listed([dict(img_path='a.jpg', gt_label=label)]))


def test_a_source_without_class_names_is_refused():
    with pytest.raises(ValueError, match='names its classes, but ListedForTest does not'):
        read_source(listed([dict(img_path='a.jpg', gt_label=0)], classes=None))


def test_a_source_without_images_is_refused():
    with pytest.raises(ValueError, match=r"image 0 of ListedForTest has \['gt_label'"):
        read_source(listed([dict(gt_label=0)]))


def test_a_missing_data_root_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere' does not exist: set MHC_DATA_ROOT"):
        read_source(dict(type='Caltech101', data_root=str(tmp_path / 'nowhere')))


@pytest.fixture
def two_folders(tmp_path, make_image):
    """Training folders against test folders: one name, one copy and nothing in common."""
    make_image(tmp_path / 'train' / 'a' / 'same_name.png', seed=1)
    make_image(tmp_path / 'train' / 'a' / 'copied.png', seed=2)
    make_image(tmp_path / 'train' / 'b' / 'own.png', seed=3)
    make_image(tmp_path / 'test' / 'a' / 'same_name.png', seed=4, size=(9, 9))
    (tmp_path / 'test' / 'b').mkdir()
    shutil.copy(tmp_path / 'train/a/copied.png', tmp_path / 'test/b/renamed.png')
    # As long as a training file, with other content.
    content = bytearray((tmp_path / 'train/b/own.png').read_bytes())
    content[-20] ^= 1
    (tmp_path / 'test/b/as_long.png').write_bytes(content)
    train, test = (read_source(folder(tmp_path / side))[0] for side in ('train', 'test'))
    assert [image.name for image in train] == ['a/copied.png', 'a/same_name.png', 'b/own.png']
    return train, test


def test_shared_images_are_found_by_name(two_folders):
    assert same_name(*two_folders) == {1}


def test_shared_images_are_found_by_content(two_folders):
    assert same_content(*two_folders) == {0}


def test_only_files_of_equal_size_are_read(two_folders, monkeypatch):
    read = []
    get = fileio.get
    monkeypatch.setattr(fileio, 'get', lambda path: read.append(path) or get(path))
    same_content(*two_folders)
    # All images of one size in pixels make files of one size here, but for this small one.
    assert any(path.endswith('train/a/same_name.png') for path in read)
    assert not any(path.endswith('test/a/same_name.png') for path in read)


def test_arrays_share_content_but_no_names():
    def arrays(*values):
        return read_source(
            listed([dict(img=np.full((2, 2), v, np.uint8), gt_label=0) for v in values])
        )[0]

    assert same_content(arrays(1, 2, 3), arrays(3, 1)) == {0, 2}
    assert same_name(arrays(1, 2), arrays(1, 2)) == set()
    flat = read_source(listed([dict(img=np.full((1, 4), 1, np.uint8), gt_label=0)]))[0]
    assert same_content(arrays(1), flat) == set()


def test_missing_files(tmp_path, make_image):
    there = read_source(listed([dict(img_path=str(make_image(tmp_path / 'a.png')), gt_label=0)]))[0]
    gone = read_source(listed([dict(img_path=str(tmp_path / 'gone.png'), gt_label=0)]))[0]
    assert same_content(there, gone) == set()
    with pytest.raises(FileNotFoundError, match=r"gone\.png' does not"):
        same_content(gone, there)
