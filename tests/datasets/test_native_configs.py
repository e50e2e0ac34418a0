"""The bases of VOC and OpenImages."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets import OpenImagesSubset, VOCSubset, choose_classes

BASES = Path(__file__).parents[2] / 'configs' / '_base_' / 'datasets'
TWENTY = (
    'Airplane',
    'Bicycle',
    'Bird',
    'Boat',
    'Bottle',
    'Bus',
    'Car',
    'Cat',
    'Chair',
    'Cattle',
    'Kitchen & dining room table',
    'Dog',
    'Horse',
    'Motorcycle',
    'Person',
    'Houseplant',
    'Sheep',
    'Couch',
    'Train',
    'Television',
)


def datasets(name):
    cfg = Config.fromfile(BASES / f'{name}.py')
    return [DATASETS.build(cfg[f'{part}_dataloader'].dataset) for part in ('train', 'val', 'test')]


def check_samples(train, val, test, size):
    assert len(val) == len(test) == size
    sample = train[0]
    assert sample['inputs'].shape == (3, 224, 224)
    assert set(sample['data_samples'].keys()) == {'gt_label', 'gt_score'}
    sample = test[0]
    assert sample['inputs'].shape == (3, 224, 224)
    assert set(sample['data_samples'].keys()) == {
        'gt_label',
        'gt_score',
        'gt_bboxes',
        'gt_bbox_labels',
        'gt_bbox_difficult',
    }


@pytest.mark.parametrize('name', ['voc', 'openimages'])
def test_missing_data_is_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*' does not exist: set MHC_DATA_ROOT"):
        datasets(name)


@pytest.mark.parametrize('name', ['voc', 'openimages'])
def test_metrics_are_the_papers(name):
    cfg = Config.fromfile(BASES / f'{name}.py')
    assert cfg.num_classes == len(cfg.classes) == 10
    assert [dict(metric) for metric in cfg.test_evaluator] == [
        dict(type='TopKMultiLabelMetric', topk=(1, 2, 3, 4, 5), average='macro'),
        dict(type='MultiLabelMeanAP'),
    ]
    for part in ('train', 'val', 'test'):
        dataset = cfg[f'{part}_dataloader'].dataset
        assert (dataset.min_labels, dataset.max_labels, dataset.max_images) == (2, 7, 10_000)


def test_voc_takes_both_years_where_both_are(make_voc, tmp_path, monkeypatch):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path))
    kit = tmp_path / 'VOCdevkit'
    objects = [('car', 0), ('dog', 0)]
    make_voc(kit / 'VOC2007', {'1': objects, '2': objects})
    make_voc(kit / 'VOC2007', {'3': objects}, split='test')
    make_voc(kit / 'VOC2012', {'2008_1': objects, '2008_2': objects[:1]})
    train, val, test = datasets('voc')
    assert len(train) == 3
    check_samples(train, val, test, 1)


def test_openimages_looks_where_its_downloader_leaves_images(
    make_openimages, tmp_path, monkeypatch
):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path))
    monkeypatch.delenv('MHC_OPENIMAGES_IMAGES', raising=False)
    root = tmp_path / 'openimages'
    labels = [('a', '/m/cat', 1), ('a', '/m/dog', 1), ('b', '/m/cat', 1)]
    for split in ('train', 'test'):
        make_openimages(root, labels, [('a', '/m/cat', 0, 1, 0, 1, 0, 0)], split=split)
    classes = Config.fromfile(BASES / 'openimages.py').classes
    (root / 'class-descriptions-boxable.csv').write_text(
        ''.join(f'/m/{name.lower()},{name}\n' for name in classes)
    )
    train, val, test = datasets('openimages')
    assert train.get_data_info(0)['img_path'] == str(root / 'train/a.jpg')
    check_samples(train, val, test, 1)


@pytest.mark.parametrize('name', ['voc', 'openimages'])
def test_classes_can_be_chosen_from_the_data_at_hand(
    make_voc, make_openimages, tmp_path, monkeypatch, name
):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path))
    monkeypatch.setenv(f'MHC_{name.upper()}_CLASSES', 'chosen')
    monkeypatch.delenv('MHC_OPENIMAGES_IMAGES', raising=False)
    twelve = [f'class {i}' for i in range(10)] + ['alone', 'rare']
    if name == 'voc':
        twelve = [*VOCSubset.METAINFO['classes'][:12]]
    pairs = [(twelve[i], twelve[(i + 1) % 10]) for i in range(10)] + [(twelve[10],)] * 20
    for part, images in (('trainval', pairs), ('test', pairs[:2])):
        if name == 'voc':
            objects = {str(i): [(label, 0) for label in labels] for i, labels in enumerate(images)}
            make_voc(tmp_path / 'VOCdevkit/VOC2012', objects, split=part)
        else:
            labels = [(f'{i}', f'/m/{c}', 1) for i, labels in enumerate(images) for c in labels]
            root = make_openimages(tmp_path / name, labels, split=part.replace('trainval', 'train'))
    if name == 'openimages':
        (root / 'class-descriptions-boxable.csv').write_text(
            ''.join(f'/m/{label},{label}\n' for label in twelve)
        )
    assert Config.fromfile(BASES / f'{name}.py').num_classes == 10
    for dataset, size in zip(datasets(name), (10, 2, 2)):
        assert dataset.metainfo['classes'] == tuple(twelve[:10])
        assert len(dataset) == size


@pytest.mark.real_data
def test_the_ten_classes_of_voc_leave_more_images_than_any_other_ten(data_root):
    """The independent count goes through all 184,756 choices of ten of VOC's twenty."""
    names, rows = None, []
    for part in ('voc2007_trainval', 'voc2007_test', 'voc2012_val'):
        with (data_root / f'voc-labels/{part}.csv').open(newline='') as file:
            names, *lines = csv.reader(file)
            rows += [line[1:] for line in lines]
    labels = np.array(rows, np.int8)
    # VOC's codes: 1 present, 0 only as a difficult object, -1 absent.
    labels = np.select([labels == 1, labels == 0], [1, -1], 0).astype(np.int8)
    patterns, images = np.unique((labels == 1) @ (1 << np.arange(20)), return_counts=True)
    ones = np.array([bin(i).count('1') for i in range(1 << 20)], np.int8)

    def images_with_2_to_7(chosen):
        count = ones[patterns & sum(1 << i for i in chosen)]
        return images[(count >= 2) & (count <= 7)].sum()

    chosen = choose_classes(labels, num_classes=10, min_labels=2, max_labels=7, max_images=10_000)
    assert tuple(names[1 + i] for i in chosen) == Config.fromfile(BASES / 'voc.py').classes
    most = max(map(images_with_2_to_7, itertools.combinations(range(20), 10)))
    assert images_with_2_to_7(chosen) == most == 4047


@pytest.mark.real_data
@pytest.mark.parametrize(('name', 'sizes'), [('voc', (428, 232)), ('openimages', (284, 232))])
def test_the_papers_subsets_of_the_development_data(data_root, monkeypatch, name, sizes):
    monkeypatch.setenv('MHC_DATA_ROOT', str(data_root))
    monkeypatch.setenv('MHC_OPENIMAGES_IMAGES', '../VOCdevkit/VOC2012/JPEGImages')
    monkeypatch.setenv('MHC_VOC_CLASSES', 'development')
    train, val, test = datasets(name)
    assert len(train) == sizes[0]
    check_samples(train, val, test, sizes[1])


@pytest.mark.real_data
def test_the_classes_of_openimages_are_what_the_call_in_the_config_finds(data_root):
    scores = [
        OpenImagesSubset(
            str(data_root / 'openimages'),
            split,
            classes=TWENTY,
            image_folder='../VOCdevkit/VOC2012/JPEGImages',
        ).data_list.labels.dense()
        for split in ('train', 'validation')
    ]
    chosen = choose_classes(
        np.concatenate(scores),
        num_classes=10,
        min_labels=2,
        max_labels=7,
        max_images=10_000,
        seed=0,
    )
    assert tuple(TWENTY[i] for i in chosen) == Config.fromfile(BASES / 'openimages.py').classes
