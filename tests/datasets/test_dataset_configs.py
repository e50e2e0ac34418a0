"""The dataset configs: their sets, their paths, and the paper's augmentation."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS, METRICS, TRANSFORMS

import mhc_plugin
from mhc_plugin.utils.seeding import seeded

BASES = Path(mhc_plugin.__file__).parents[1] / 'configs' / '_base_' / 'datasets'
SPLICED = ('combined0', 'combined1', 'digits')
OWN = ('own_data', 'own_data_json')


def config(name):
    return Config.fromfile(BASES / f'{name}.py')


def build(cfg, loader):
    return DATASETS.build(cfg[f'{loader}_dataloader'].dataset)


@pytest.mark.parametrize('name', SPLICED + OWN)
def test_the_class_list_stands_in_one_place(name):
    cfg = config(name)
    assert cfg.num_classes == len(cfg.classes)
    for loader in ('train', 'val', 'test'):
        assert tuple(cfg[f'{loader}_dataloader'].dataset.classes) == tuple(cfg.classes)
        assert cfg[f'{loader}_dataloader'].batch_size == 128
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator == cfg.test_evaluator


@pytest.mark.parametrize('name', ['combined0', 'combined1', *OWN])
def test_the_data_root_comes_from_the_environment(name, monkeypatch, tmp_path):
    monkeypatch.delenv('MHC_DATA_ROOT', raising=False)
    assert Path(config(name).data_root).parts[0] == 'data'
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path))
    assert config(name).data_root.startswith(str(tmp_path))
    heir = tmp_path / 'heir.py'
    heir.write_text(f"_base_ = ['{BASES / name}.py']\nnum = {{{{_base_.num_classes}}}}\n")
    cfg = Config.fromfile(heir)
    assert cfg.data_root.startswith(str(tmp_path))
    assert cfg.num == cfg.num_classes


@pytest.mark.parametrize('name', ['combined0', 'combined1', 'own_data', 'own_data_json'])
def test_missing_data_is_one_sentence(name, monkeypatch, tmp_path):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path / 'nowhere'))
    with pytest.raises(FileNotFoundError, match=r"nowhere.*' does not exist: set MHC_DATA_ROOT"):
        build(config(name), 'train')


@pytest.mark.parametrize('name', SPLICED)
def test_top_4_micro_and_mean_ap(name):
    topk, mean_ap = (METRICS.build(metric) for metric in config(name).val_evaluator)
    assert type(topk).__name__ == 'TopKMultiLabelMetric'
    assert (list(topk.topk), topk.average) == ([4], 'micro')
    assert type(mean_ap).__name__ == 'MultiLabelMeanAP'


def test_digits_run_without_any_data():
    cfg = config('digits')
    train, test = build(cfg, 'train'), build(cfg, 'test')
    assert (len(train), len(test)) == (2000, 500)
    sample = train[0]
    assert sample['inputs'].shape == (3, cfg.image_size, cfg.image_size)
    assert sample['data_samples'].gt_cells.shape == (2, 2)
    assert not tiles(train) & tiles(test)


def test_cells_follow_test_time_augmentation():
    cfg = config('digits')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = build(cfg, 'test')
    expected = dataset.get_data_info(0)['gt_cells']
    sample = dataset[0]
    assert torch.equal(sample['data_samples'][0].gt_cells, expected)
    assert torch.equal(sample['data_samples'][1].gt_cells, expected.flip(1))
    assert torch.equal(sample['inputs'][1], sample['inputs'][0].flip(2))
    spliced = config('spliced').tta_pipeline
    assert [step.type for step in spliced] == ['ComposeTiles', 'Resize', 'TestTimeAug']
    assert spliced[2] == cfg.tta_pipeline[1]


def tiles(dataset):
    """Contents of all tiles of a spliced set."""
    found = set()
    for idx in range(len(dataset)):
        for tile in dataset.get_data_info(idx)['tiles']:
            in_memory = 'img' in tile
            content = tile['img'].tobytes() if in_memory else Path(tile['img_path']).read_bytes()
            found.add(hashlib.sha1(content).digest())
    return found


@pytest.mark.real_data
@pytest.mark.parametrize('name', ['combined0', 'combined1'])
def test_combined_sets_of_real_images(name, data_root, monkeypatch):
    monkeypatch.setenv('MHC_DATA_ROOT', str(data_root))
    cfg = config(name)
    train, test = build(cfg, 'train'), build(cfg, 'test')
    assert (len(train), len(test)) == (3000, 1000)
    assert train.metainfo['classes'] == tuple(cfg.classes)
    for dataset in (train, test):
        uses = np.bincount(np.concatenate(dataset.get_gt_labels()))
        assert uses.tolist() == [len(dataset) * 4 // 10] * 10
    names = [
        {
            Path(tile['img_path']).name if name == 'combined0' else tile['img_path']
            for idx in range(len(dataset))
            for tile in dataset.get_data_info(idx)['tiles']
        }
        for dataset in (train, test)
    ]
    assert not names[0] & names[1]
    assert not tiles(train) & tiles(test)
    for sample in (train[7], test[7]):
        assert sample['inputs'].shape == (3, 224, 224)
        cells = sample['data_samples'].gt_cells
        assert torch.equal(cells.flatten().sort().values, sample['data_samples'].gt_label)


@pytest.mark.real_data
def test_folders_show_the_classes_that_the_config_names(data_root, monkeypatch):
    monkeypatch.setenv('MHC_DATA_ROOT', str(data_root))
    cfg = config('combined1')
    dataset = build(cfg, 'train')
    for idx in range(100):
        info = dataset.get_data_info(idx)
        shown = [Path(tile['img_path']).parent.name for tile in info['tiles']]
        assert shown == [cfg.classes[c] for c in info['gt_cells'].flatten()]


@pytest.mark.parametrize('name', OWN)
def test_own_images(name, monkeypatch, tmp_path, make_image):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path))
    cfg = config(name)
    for seed, file in enumerate(('a.jpg', 'b.png')):
        make_image(tmp_path / 'own' / 'images' / file, seed=seed)
    data_list = [
        dict(img_path='a.jpg', gt_label=[0, 2]),
        dict(img_path='b.png', gt_label=[], unknown_label=[1]),
    ]
    for split in ('train', 'val'):
        (tmp_path / 'own' / f'{split}.csv').write_text(
            'file,labels,unknown_labels\na.jpg,horse|cat,\nb.png,,dog\n'
        )
        (tmp_path / 'own' / f'{split}.json').write_text(
            json.dumps(dict(metainfo=dict(classes=cfg.classes), data_list=data_list))
        )
    for loader in ('train', 'val'):
        dataset = build(cfg, loader)
        samples = [dataset[idx] for idx in range(2)]
        assert all(sample['inputs'].shape == (3, 224, 224) for sample in samples)
        assert samples[0]['data_samples'].gt_label.tolist() == [0, 2]
        assert samples[1]['data_samples'].gt_score.tolist() == [0, -1, 0]


def test_the_papers_augmentation():
    """Resize to 224, 8 zero pixels on each side, a random window of 224, a random flip."""
    steps = [TRANSFORMS.build(step) for step in config('spliced').train_pipeline[1:-1]]
    image = np.random.RandomState(0).randint(1, 256, (300, 200, 3), dtype=np.uint8)
    resized = cv2.resize(image, (224, 224), interpolation=cv2.INTER_LINEAR)
    padded = np.zeros((240, 240, 3), np.uint8)
    padded[8:232, 8:232] = resized
    windows = {
        padded[top : top + 224, left : left + 224, 0].tobytes(): (top, left)
        for top in range(17)
        for left in range(17)
    }
    seen = {True: set(), False: set()}
    for draw in range(300):
        results = dict(img=image, gt_cells=torch.tensor([[0, 1], [2, 3]]))
        with seeded(draw):
            for step in steps:
                results = step(results)
        img = results['img'][:, ::-1] if results['flip'] else results['img']
        seen[results['flip']].add(windows[np.ascontiguousarray(img[..., 0]).tobytes()])
        assert results['gt_cells'][0, 0] == (1 if results['flip'] else 0)
    assert all(len(offsets) > 80 for offsets in seen.values())
    offsets = np.array(sorted(seen[True] | seen[False]))
    assert offsets.min(axis=0).tolist() == [0, 0]
    assert offsets.max(axis=0).tolist() == [16, 16]


def test_a_choice_of_classes_that_there_is_not_is_named_with_those_that_there_are(monkeypatch):
    monkeypatch.setenv('MHC_VOC_CLASSES', 'real')
    with pytest.raises(ValueError, match="'real'; it can be voc, development, chosen"):
        config('voc')
    for choice in ('voc', 'development', 'chosen'):
        monkeypatch.setenv('MHC_VOC_CLASSES', choice)
        assert not [name for name in config('voc') if 'choices' in name]
