"""A subset's table of labels against what it gives image by image."""

import numpy as np
import pytest
import torch
from mmpretrain.datasets import BaseDataset
from mmpretrain.structures import DataSample

from mhc_plugin.datasets.label_table import LabelTable
from mhc_plugin.datasets.sample_table import SampleTable
from mhc_plugin.datasets.subset import SubsetMixin
from mhc_plugin.features.description import describe_dataset
from mhc_plugin.features.samples import encode_sample, target_table
from mhc_plugin.features.store import FileHashes, Layout
from mhc_plugin.utils.known_pairs import KnownPairs

NUM_IMAGES, NUM_CLASSES = 7, 40


class Made(SubsetMixin, BaseDataset):
    """Images of some classes, of which few labels are known or few are not."""

    def __init__(self, folder, fill, **kwargs):
        self.folder, self.fill, self.split = str(folder), fill, 'made'
        self.init_subset(0, None, None, 0)
        classes = [f'class {c}' for c in range(NUM_CLASSES)]
        super().__init__(ann_file='', classes=classes, serialize_data=False, **kwargs)

    def read_samples(self):
        rng = np.random.RandomState(0)
        labels = np.full((NUM_IMAGES, NUM_CLASSES), self.fill, np.int8)
        for row in labels[1:]:
            row[rng.choice(NUM_CLASSES, 3, replace=False)] = rng.randint(-1 - self.fill, 2, 3)
        names = np.array([b'%d' % i for i in range(NUM_IMAGES)])
        table = LabelTable.from_dense(labels, self.fill)
        return SampleTable([self.folder], np.zeros(NUM_IMAGES, np.uint8), names, table)


class Inverted(Made):
    """Gives labels of its own."""

    def get_data_info(self, idx):
        info = super().get_data_info(idx)
        info['gt_score'] = np.where(info['gt_score'] < 0, -1, 1 - info['gt_score'])
        return info


@pytest.fixture
def folder(tmp_path):
    for i in range(NUM_IMAGES):
        (tmp_path / f'{i}').write_bytes(b'image %d' % i)
    return tmp_path


class Stored:
    """A pipeline that packs labels as the dataset gives them."""

    def __init__(self, dataset, keys):
        self.encoded = []
        for i in range(len(dataset)):
            info, sample = dataset.get_data_info(i), DataSample()
            for key in keys:
                getattr(sample, f'set_{key}')(info[key])
            self.encoded.append(encode_sample(sample, info))
        self.layout = Layout(len(dataset), 1, ((1,),), 'fp16', 10)

    def sample(self, row):
        return self.encoded[row]

    def distinct_samples(self):
        return iter(self.encoded)


KEEP = [None, ['class 7', 'class 3', 'class 39']]


@pytest.mark.parametrize('kind', [Made, Inverted])
@pytest.mark.parametrize('fill', [0, -1])
@pytest.mark.parametrize('keep', KEEP, ids=['all', 'some'])
@pytest.mark.parametrize('keys', [('gt_score', 'gt_label'), ('gt_label',)])
def test_targets_are_those_of_the_images(folder, kind, fill, keep, keys):
    dataset = kind(folder, fill, keep_classes=keep)
    num_classes = len(dataset.metainfo['classes'])
    found = target_table(dataset, Stored(dataset, keys), num_classes)
    if isinstance(found, KnownPairs):
        found = found.dense()
    for i, target in enumerate(found):
        info = dataset.get_data_info(i)
        if 'gt_score' in keys:
            expected = torch.from_numpy(info['gt_score'])
        else:
            expected = torch.zeros(num_classes).index_fill(
                0, torch.tensor(info['gt_label']).long(), 1
            )
        assert torch.equal(target.float(), expected.float())


def test_a_table_of_few_known_labels_is_taken_as_it_is(folder):
    dataset = Made(folder, -1)
    found = target_table(dataset, Stored(dataset, ['gt_score']), NUM_CLASSES)
    assert isinstance(found, KnownPairs)
    labels = dataset.data_list.labels
    assert found.classes.data_ptr() == labels.classes.ctypes.data
    # One that gives other labels than its table has is asked for each.
    assert Inverted(folder, -1).label_table is None


@pytest.mark.parametrize('kind', [Made, Inverted])
def test_what_is_known_but_for_labels(folder, kind):
    dataset = kind(folder, -1)
    labels = ('gt_label', 'gt_score', 'unknown_label')
    for i in (0, 3, -1):
        info = dataset.get_data_info(i)
        own = {k: v for k, v in dataset.unlabelled_info(i).items() if k not in labels}
        assert own == {k: v for k, v in info.items() if k not in labels}
        assert own['sample_idx'] == i % NUM_IMAGES


def test_labels_are_made_only_where_they_count(folder, monkeypatch):
    dataset, made = Made(folder, -1), []
    row = LabelTable.row
    monkeypatch.setattr(LabelTable, 'row', lambda self, i: made.append(i) or row(self, i))
    without = describe_dataset(dataset, FileHashes())
    assert made == []
    whole = describe_dataset(dataset, FileHashes(), with_labels=True)
    assert made == list(range(NUM_IMAGES))
    assert whole['samples'] != without['samples']
    # As of a dataset that knows no such way.
    monkeypatch.delattr('mhc_plugin.datasets.subset.SubsetMixin.unlabelled_info')
    assert describe_dataset(dataset, FileHashes())['samples'] == without['samples']
