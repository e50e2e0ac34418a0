"""Every config builds, is what its name says, and is listed."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmpretrain.registry import MODELS

import mhc_plugin  # noqa: F401

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / 'configs' / 'mhc').glob('*.py'))
HEADS = dict(
    multiatt='AttentionMultiHeadClsHead',
    baseline='MultiLabelLinearClsHead',
    convfc='ConvClsHead',
    multifc='MultiHeadClsHead',
    multiconv='ConvMultiHeadClsHead',
)
BACKBONES = {
    'seresnet50': 'SEResNet',
    'vgg19': 'VGG',
    'swin-tiny': 'SwinTransformer',
    'efficientnet-lite0': 'TIMMBackbone',
}
CHANNELS = {
    'seresnet50': [1024, 2048],
    'vgg19': [512, 512],
    'swin-tiny': [384, 768],
    'efficientnet-lite0': [112, 320],
}
DATA = {
    'combined0': 'SplicedDataset',
    'combined1': 'SplicedDataset',
    'digits': 'SplicedDataset',
    'voc': 'VOCSubset',
    'openimages': 'OpenImagesSubset',
    'own-data': 'CSVMultiLabelDataset',
}
MODEL_LINE = (
    'model = dict(neck=_base_.neck, head=dict(_base_.head, num_classes=_base_.num_classes))\n'
)
EPOCHS = dict(combined0=300, combined1=300, voc=1000, openimages=1000)


def test_the_grid_is_complete():
    names = {path.stem for path in CONFIGS}
    grid = {
        f'{b}_{h}_{d}'
        for b in BACKBONES
        for h in (*HEADS, 'convfc-wide')
        for d in ('combined0', 'combined1', 'voc', 'openimages')
    }
    grid |= {
        f'{b}_{h}-{c}_combined0'
        for b in BACKBONES
        for h in ('multifc', 'multiconv')
        for c in ('channels', 'stages')
    }
    grid |= {f'efficientnet-lite0_{h}_digits' for h in (*HEADS, 'convfc-wide')}
    grid |= {f'efficientnet-lite0_{h}_own-data' for h in ('multifc', 'multiatt')}
    assert names == grid


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_its_base_lines(path):
    """What differs between two configs stands in `_base_` alone."""
    bases, _, rest = path.read_text().partition(']\n')
    assert rest == MODEL_LINE
    backbone, head, data = path.stem.split('_')
    stages = '_stages' if head.endswith('-stages') else ''
    assert re.findall(r'_base_/(models|heads|datasets)/(\S+)\.py', bases) == [
        ('models', backbone + stages),
        ('heads', head),
        ('datasets', data.replace('-', '_')),
    ]


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_is_what_its_name_says(path):
    cfg = Config.fromfile(path)
    backbone, head, data = path.stem.split('_')
    head, _, variant = head.partition('-')
    model = cfg.model
    assert model.type == 'FrozenBackboneClassifier'
    assert model.backbone.type == BACKBONES[backbone]
    assert model.head.type == HEADS[head]
    assert dict(model.head.loss) == dict(type='PerHeadBCELoss', head_reduction='sum')
    assert model.head.get('conv_channels', 16) == (160 if variant == 'wide' else 16)
    expected = variant if variant in ('channels', 'stages') else 'all'
    assert model.head.get('connection', 'all') == expected
    if variant == 'stages':
        assert list(model.head.in_channels) == CHANNELS[backbone]
        assert list(model.head.head_stages) == [c * 2 // 10 for c in range(10)]
    assert cfg.train_dataloader.dataset.type == DATA[data]
    assert cfg.train_dataloader.batch_size == 128
    assert cfg.optim_wrapper.optimizer.type == 'SGD'
    assert cfg.optim_wrapper.optimizer.lr == 0.01
    if data in EPOCHS:
        # The heads of the paper follow its schedule.
        assert cfg.train_cfg.max_epochs == (30 if head == 'multiatt' else EPOCHS[data])
    assert model.head.num_classes == cfg.num_classes
    metrics = {metric.type: metric for metric in cfg.test_evaluator}
    assert 'MultiLabelMeanAP' in metrics
    topk = metrics['TopKMultiLabelMetric']
    if DATA[data] == 'SplicedDataset':
        assert (topk.topk, topk.average) == (4, 'micro')
    elif data in ('voc', 'openimages'):
        assert (list(topk.topk), topk.get('average', 'macro')) == ([1, 2, 3, 4, 5], 'macro')


def distinct_models():
    """One config per model: the data do not matter for these tests."""
    return [
        path
        for path in CONFIGS
        if path.stem.endswith('_combined0') or path.stem.endswith('own-data')
    ]


@pytest.mark.parametrize('path', distinct_models(), ids=lambda path: path.stem)
def test_model_trains_a_batch_and_predicts(path):
    if path.stem.startswith('efficientnet'):
        pytest.importorskip('timm')
    cfg = Config.fromfile(path)
    cfg.model.backbone.pop('init_cfg')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    model = MODELS.build(cfg.model)
    size = 224 if path.stem.startswith('swin') else 64
    classes = cfg.model.head.num_classes
    from mmpretrain.structures import DataSample

    data = dict(
        inputs=torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8),
        data_samples=[DataSample().set_gt_score(torch.ones(classes)) for _ in range(2)],
    )
    optim = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    model(**model.data_preprocessor(data, training=True), mode='loss')['loss'].backward()
    optim.step()
    assert all(p.grad is not None for p in model.head.parameters())
    with torch.no_grad():
        predicted = model.eval().test_step(data)
    assert predicted[0].pred_score.shape == (classes,)


def list_configs(root, *args):
    return subprocess.run(
        [sys.executable, root / 'tools' / 'list_configs.py', *args], capture_output=True, text=True
    )


def test_list_of_configs_is_up_to_date():
    process = list_configs(ROOT, '--check')
    assert process.returncode == 0, process.stdout + process.stderr
    metafile = yaml.safe_load((ROOT / 'configs' / 'mhc' / 'metafile.yml').read_text())
    for model in metafile['Models']:
        assert (ROOT / model['Config']).stem == model['Name']
        for own in model['Results']:
            scores = json.loads((ROOT / own['Record']).read_text())['scores']
            if model['Name'] in scores:
                values = [scores[model['Name']]['multi-label/mAP']['mean']]
            else:
                (values,) = (
                    row['metrics']['multi-label/mAP']
                    for row in scores['rows']
                    if '_'.join(row[key] for key in ('backbone', 'head', 'dataset'))
                    == model['Name']
                    and (row['schedule'], row['options'], row['random']) == ('short', [], False)
                )
            assert own['Metrics']['mAP'] == round(sum(values) / len(values), 2)


def test_what_was_edited_by_hand_is_named_and_written_again(tmp_path):
    (tmp_path / 'tools').mkdir()
    shutil.copy(ROOT / 'tools' / 'list_configs.py', tmp_path / 'tools')
    mhc = tmp_path / 'configs' / 'mhc'
    shutil.copytree(ROOT / 'configs' / 'mhc', mhc)
    shutil.copytree(ROOT / 'results', tmp_path / 'results')
    (mhc / 'vgg19_multifc_voc.py').unlink()
    (mhc / 'vgg19_mine_voc.py').write_text('')
    with open(mhc / 'vgg19_convfc_voc.py', 'a') as f:
        f.write('\nmodel = dict(head=dict(conv_channels=8))\n')
    process = list_configs(tmp_path, '--check')
    assert process.returncode == 1
    assert process.stdout == (
        'Not up to date: vgg19_convfc_voc.py, vgg19_mine_voc.py, vgg19_multifc_voc.py. '
        'Run `python tools/list_configs.py`.\n'
    )
    assert list_configs(tmp_path).returncode == 0
    written = {path.name: path.read_text() for path in mhc.iterdir()}
    assert written == {p.name: p.read_text() for p in (ROOT / 'configs' / 'mhc').iterdir()}


def test_configs_are_found_by_package_and_by_name(tmp_path):
    import mmpretrain

    (tmp_path / 'mine.py').write_text(
        "_base_ = 'mhc_plugin::mhc/efficientnet-lite0_multiconv_digits.py'\n"
        'model = dict(head=dict(conv_channels=8))\n'
    )
    cfg = Config.fromfile(tmp_path / 'mine.py')
    assert cfg.model.head.type == 'ConvMultiHeadClsHead'
    assert '_scope_' not in cfg.model or cfg.model['_scope_'] == 'mmpretrain'
    # What has figures is a model; the others are configs.
    models = mmpretrain.list_models('*_multifc_voc')
    assert 'efficientnet-lite0_multifc_voc' in models
    assert 'seresnet50_multifc_voc' not in models
    pytest.importorskip('timm')
    model = mmpretrain.get_model('efficientnet-lite0_multiconv_combined0')
    assert type(model.head).__name__ == 'ConvMultiHeadClsHead'
