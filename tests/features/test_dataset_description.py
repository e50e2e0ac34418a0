"""Descriptions of datasets: which samples, files and pipelines change a key."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_description import Crop, Images
from torch import nn

from mhc_plugin.features import description
from mhc_plugin.features.description import describe_dataset
from mhc_plugin.features.store import FileHashes, make_key


class Repeated:
    """A dataset around another."""

    def __init__(self, dataset, times):
        self.dataset = dataset
        self.times = times

    def __len__(self):
        return len(self.dataset) * self.times

    def get_data_info(self, index):
        return self.dataset.get_data_info(index % len(self.dataset))


def dataset_key(dataset, with_labels=False):
    return make_key(describe_dataset(dataset, FileHashes(), with_labels))


@pytest.fixture
def folder(tmp_path):
    """Make a folder of three files."""

    def make(name):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f'{i}.jpg').write_bytes(bytes([i]) * 100)
        return tmp_path / name

    return make


def infos(folder, **more):
    return [dict(img_path=str(folder / f'{i}.jpg'), gt_label=i, **more) for i in range(3)]


def test_dataset_key_does_not_change_with_the_place_of_the_folder(folder):
    assert dataset_key(Images(infos(folder('a')))) == dataset_key(Images(infos(folder('b'))))


def test_dataset_key_changes_with_any_byte_of_any_image(folder):
    root = folder('a')
    before = dataset_key(Images(infos(root)))
    content = bytearray((root / '2.jpg').read_bytes())
    content[-1] ^= 1
    (root / '2.jpg').write_bytes(content)
    assert dataset_key(Images(infos(root))) != before


def test_dataset_key_changes_with_order_number_and_what_transforms_may_read(folder):
    whole = infos(folder('a'))
    datasets = [
        whole,
        whole[::-1],
        whole[:2],
        [*whole, whole[0]],
        infos(Path(whole[0]['img_path']).parent, boxes=np.zeros((1, 4))),
    ]
    assert len({dataset_key(Images(i)) for i in datasets}) == len(datasets)


def test_labels_count_on_request_only(folder):
    one, other = infos(folder('a')), infos(folder('b'))
    other[0]['gt_label'] = 7
    assert dataset_key(Images(one)) == dataset_key(Images(other))
    assert dataset_key(Images(one), True) != dataset_key(Images(other), True)


def test_tiles_and_arrays_count_by_content(folder):
    one, other = folder('a'), folder('b')

    def spliced(root, pixels):
        tiles = [dict(img_path=str(root / '0.jpg')), dict(img=np.array(pixels, np.uint8))]
        return Images([dict(tiles=tiles, gt_cells=torch.tensor([[0, 1]]))])

    assert dataset_key(spliced(one, [1, 2])) == dataset_key(spliced(other, [1, 2]))
    assert dataset_key(spliced(one, [1, 2])) != dataset_key(spliced(one, [1, 3]))
    (other / '0.jpg').write_bytes(b'changed')
    assert dataset_key(spliced(one, [1, 2])) != dataset_key(spliced(other, [1, 2]))


def test_pipeline_counts_inside_of_wrappers_too(folder):
    whole = infos(folder('a'))
    datasets = [
        Images(whole, [Crop(1)]),
        Images(whole, [Crop(2)]),
        Repeated(Images(whole, [Crop(1)]), 2),
        Repeated(Images(whole, [Crop(2)]), 2),
    ]
    assert len({dataset_key(dataset) for dataset in datasets}) == len(datasets)
    assert dataset_key(datasets[2]) == dataset_key(Repeated(Images(whole, [Crop(1)]), 2))


class Tinted(Images):
    """A dataset of the user's own, which does more to images than its pipeline."""

    def __init__(self, infos, root, **attributes):
        super().__init__(infos)
        self.root = str(root)  # where it lies makes no difference
        vars(self).update(attributes)

    def __getitem__(self, index):
        return self._tint * index


def test_what_a_dataset_of_ones_own_holds_counts_besides_its_samples(folder):
    root = folder('a')
    attributes = [
        {},
        dict(_tint=1.0),
        dict(_tint=2.0),
        dict(_tint=torch.ones(3)),
        dict(_tint=torch.zeros(3)),
        dict(_tint=np.ones(3)),
        dict(_tint=nn.Linear(1, 1)),
        dict(mode='grey'),
    ]
    keys = {dataset_key(Tinted(infos(root), root, **more)) for more in attributes}
    assert len(keys) == len(attributes)
    other = folder('b')
    assert dataset_key(Tinted(infos(other), other)) in keys


def test_labels_of_any_kind_do_not_count(folder):
    one, other = infos(folder('a')), infos(folder('b'))
    other[0].update(gt_label=[2], gt_score=np.ones(3, np.float32), unknown_label=[0, 1])
    assert dataset_key(Images(one)) == dataset_key(Images(other))


def test_each_image_is_read_once(folder):
    hashes = FileHashes()
    describe_dataset(Repeated(Images(infos(folder('a'))), 5), hashes)
    assert hashes.num_read == 3


def test_number_of_samples_described_at_once_makes_no_difference(folder, monkeypatch):
    dataset, keys = Repeated(Images(infos(folder('a'))), 5), set()
    for ahead in (1, 4, 15, 100):
        monkeypatch.setattr(description, 'AHEAD', ahead)
        keys.add(dataset_key(dataset))
    assert len(keys) == 1


def test_set_of_files_is_described_in_one_order(folder):
    paths = dict.fromkeys(sorted(folder('a').iterdir()))
    keys = set()
    for order in (list(paths), list(paths)[::-1]):
        # What waits for a hash is another object each time.
        infos = [dict(files=set(order)), dict(by_file={Path(p): 1 for p in order})]
        keys.add(dataset_key(Images(infos)))
    assert len(keys) == 1
