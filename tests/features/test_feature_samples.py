"""Data samples as JSON and back."""

import json

import numpy as np
import pytest
import torch
from mmpretrain.models import MultiLabelClsHead
from mmpretrain.structures import DataSample, MultiTaskDataSample

from mhc_plugin.features.samples import (
    decode_sample,
    encode_sample,
    packs_labels_of_info,
    target_table,
)
from mhc_plugin.features.store import Layout
from mhc_plugin.utils.known_pairs import KnownPairs


def through_json(sample, info, later=None):
    return decode_sample(json.loads(json.dumps(encode_sample(sample, info))), later or info)


def full_sample():
    sample = DataSample().set_gt_label([0, 2]).set_gt_score(torch.tensor([1.0, 0.0, 1.0]))
    metainfo = dict(
        img_path='/a/b.jpg',
        sample_idx=3,
        ori_shape=(20, 16),
        scale_factor=(1.0, np.float64(0.8)),
        flip=True,
        flip_direction=None,
        nested=[(1, 'x'), [2.5]],
    )
    for name, value in metainfo.items():
        sample.set_field(value, name, field_type='metainfo')
    sample.set_field(torch.tensor([[0, 1], [2, 1]]), 'gt_cells')
    sample.set_field(torch.empty(0, 4), 'gt_bboxes')
    sample.set_field(torch.tensor([True, False]), 'gt_bbox_difficult')
    sample.set_field(np.array([[1, 2]], np.int16), 'array')
    sample.set_field(torch.tensor([1 / 3, 1e-30], dtype=torch.float64), 'exact')
    return sample


INFO = dict(img_path='/a/b.jpg', sample_idx=3, gt_label=[0, 2], gt_score=np.array([1, 0, 1.0]))


def test_everything_comes_back_as_it_was():
    sample = full_sample()
    decoded = through_json(sample, INFO)
    assert set(decoded.keys()) == set(sample.keys())
    assert set(decoded.metainfo_keys()) == set(sample.metainfo_keys())
    for name, value in sample.all_items():
        other = getattr(decoded, name)
        if isinstance(value, torch.Tensor):
            assert value.dtype == other.dtype
            assert value.shape == other.shape
            assert torch.equal(value, other), name
        elif isinstance(value, np.ndarray):
            assert value.dtype == other.dtype
            assert np.array_equal(value, other)
        else:
            assert value == other
            assert type(value) is type(other)


def test_paths_and_labels_are_those_of_today():
    later = dict(
        img_path='/moved/b.jpg', sample_idx=3, gt_label=[1], gt_score=np.array([0, 1, 0.0])
    )
    encoded = encode_sample(full_sample(), INFO)
    assert '/a/b.jpg' not in json.dumps(encoded)
    assert packs_labels_of_info(encoded)
    decoded = decode_sample(encoded, later)
    assert decoded.img_path == '/moved/b.jpg'
    assert decoded.gt_label.tolist() == [1]
    assert decoded.gt_score.tolist() == [0, 1, 0]


def test_labels_that_the_pipeline_changed_are_kept():
    encoded = encode_sample(full_sample(), dict(INFO, gt_label=[1]))
    assert not packs_labels_of_info(encoded)
    assert decode_sample(encoded, dict(INFO, gt_label=[1])).gt_label.tolist() == [0, 2]


def test_cells_that_were_flipped_are_kept_and_others_are_named():
    cells = torch.tensor([[0, 1], [2, 1]])
    same = encode_sample(full_sample(), dict(INFO, gt_cells=cells))
    flipped = encode_sample(full_sample(), dict(INFO, gt_cells=cells.flip(1)))
    assert 'gt_cells' in same['data_of_info']
    assert torch.equal(decode_sample(flipped, INFO).gt_cells, cells)


def test_what_cannot_be_stored_is_refused():
    sample = DataSample()
    sample.set_field({1: 2}, 'boxes')
    with pytest.raises(ValueError, match='The pipeline packs `boxes`, a `dict`, which the f'):
        encode_sample(sample, {})
    with pytest.raises(ValueError, match=r'a `DataSample`.* but got `MultiTaskDataSample`'):
        encode_sample(MultiTaskDataSample(), {})


# ---- labels as a table


class Stored:
    """What a reader says of what pipelines packed, one row per image and view."""

    def __init__(self, samples, infos, views=1):
        self.encoded = [
            encode_sample(sample, infos[row % len(infos)]) for row, sample in enumerate(samples)
        ]
        self.layout = Layout(len(infos), views, ((1,),), 'fp16', 10)

    def sample(self, row):
        return self.encoded[row]

    def distinct_samples(self):
        return iter(self.encoded)


class Infos(list):
    def get_data_info(self, index):
        return self[index]


def put_together(samples, num_classes):
    """As MMPretrain's multi-label heads do."""
    head = MultiLabelClsHead(loss=Target())
    return head._get_loss(torch.zeros(len(samples), num_classes), samples)['loss']


class Target(torch.nn.Module):
    """A loss that is what it is given."""

    def forward(self, cls_score, target, avg_factor):
        return target


LABELS = dict(
    scores=(np.float32([[1, 0, -1], [0, 0, 0], [1, 1, 1]]), None, torch.int8),
    scores_and_labels=(np.float32([[1, 0, -1], [0, 0, 0]]), [[0], []], torch.int8),
    soft=(np.float32([[1, 0, 0.5], [0, 0, 0]]), None, torch.float32),
    large=(np.float32([[1, 0, 0], [0, 0, 127]]), None, torch.float32),
    labels=(None, [[0], [1, 2], []], torch.int8),
    arrays=(None, [np.array([0]), np.array([2, 1])], torch.int8),
    numbers=(None, [2, 0], torch.int8),
)


@pytest.mark.parametrize('name', LABELS)
@pytest.mark.parametrize('at_once', [3, 6, 4096])
def test_table_is_what_mmpretrain_puts_together(name, at_once, monkeypatch):
    scores, labels, dtype = LABELS[name]
    infos, samples = Infos(), []
    for i in range(len(labels if scores is None else scores)):
        info, sample = {}, DataSample()
        if labels is not None:
            info['gt_label'] = labels[i]
            sample.set_gt_label(labels[i])
        if scores is not None:
            info['gt_score'] = scores[i]
            sample.set_gt_score(scores[i])
        infos.append(info)
        samples.append(sample)
    monkeypatch.setattr('mhc_plugin.features.samples.TARGET_VALUES', at_once)
    table = target_table(infos, Stored(samples, infos), 3)
    assert table.dtype == dtype
    assert torch.equal(table.float(), put_together(samples, 3))


def infos_with_few_known(count, num_classes, num_known, soft=()):
    rng, infos = np.random.RandomState(0), Infos()
    for i in range(count):
        scores = np.full(num_classes, -1, np.float32)
        known = rng.choice(num_classes, num_known, replace=False)
        scores[known] = rng.randint(0, 2, num_known)
        if i in soft:
            scores[known[0]] = 0.25
        infos.append(dict(gt_score=scores))
    return infos


@pytest.mark.parametrize('at_once', [1, 700, 1 << 22])
@pytest.mark.parametrize('soft', [(), (5, 6)])
def test_few_known_targets_are_kept_as_pairs(at_once, soft, monkeypatch):
    infos = infos_with_few_known(30, 200, 4, soft)
    samples = [DataSample().set_gt_score(info['gt_score']) for info in infos]
    monkeypatch.setattr('mhc_plugin.features.samples.TARGET_VALUES', at_once)
    table = target_table(infos, Stored(samples, infos), 200)
    assert isinstance(table, KnownPairs)
    assert table.values.dtype == (torch.float32 if soft else torch.int8)
    assert torch.equal(table.dense().float(), put_together(samples, 200))
    if not soft:
        assert table.num_bytes == 30 * (8 + 4 * 3) + 8


@pytest.mark.parametrize(('num_known', 'is_pairs'), [(30, True), (31, False)])
def test_the_smaller_form_is_chosen(num_known, is_pairs):
    # A matrix takes 100 bytes an image, pairs 8 and 3 for each.
    infos = infos_with_few_known(8, 100, num_known)
    samples = [DataSample().set_gt_score(info['gt_score']) for info in infos]
    table = target_table(infos, Stored(samples, infos), 100)
    assert isinstance(table, KnownPairs) is is_pairs


def test_labels_that_a_pipeline_makes_have_a_row_per_view():
    infos = Infos([dict(gt_label=[0]), dict(gt_label=[1])])
    samples = [DataSample().set_gt_label(x) for x in ([0], [1], [0, 2], [1])]
    table = target_table(infos, Stored(samples, infos, views=2), 3)
    assert torch.equal(table.float(), put_together(samples, 3))
    # Today's labels, where the pipeline packs those.
    infos[1]['gt_label'] = [2]
    stored = Stored(samples[:2], Infos([dict(gt_label=[0]), dict(gt_label=[1])]))
    assert target_table(infos, stored, 3).tolist() == [[1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ('info', 'given'),
    [(dict(gt_label=[0, 3]), r'\[0, 3\]'), (dict(gt_score=np.zeros(4, np.float32)), '4 scores')],
)
def test_labels_of_other_classes_are_an_error(info, given):
    sample = DataSample()
    for name, value in info.items():
        getattr(sample, f'set_{name}')(value)
    infos = Infos([info])
    with pytest.raises(
        ValueError, match=f'labels of the 3 classes of the head, but image 0 has {given}'
    ):
        target_table(infos, Stored([sample], infos), 3)
