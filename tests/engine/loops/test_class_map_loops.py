import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS, METRICS

from mhc_plugin.apis import class_maps
from mhc_plugin.utils.batch import Features

CLASSES = [str(digit) for digit in range(10)]
HEADS = {
    'multifc': dict(neck=None, head=dict(type='MultiHeadClsHead', num_classes=10, in_channels=64)),
    'multiconv': dict(
        neck=None,
        head=dict(type='ConvMultiHeadClsHead', num_classes=10, in_channels=64, conv_channels=4),
    ),
    'baseline': dict(
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64),
    ),
}


@METRICS.register_module()
class KeepMaps(BaseMetric):
    """A metric that only says what it was given."""

    default_prefix = 'keep'
    maps: list = []

    def process(self, data_batch, data_samples):
        self.results.extend(sample['pred_cam'].cpu() for sample in data_samples)

    def compute_metrics(self, results):
        type(self).maps = list(results)
        return dict(count=len(results))


@HOOKS.register_module()
class SeeMaps(Hook):
    shapes: list = []

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        type(self).shapes.append(tuple(outputs[0].pred_cam.shape))

    after_val_iter = after_test_iter


def config(
    tmp_path, head='multifc', split='test', loop=None, classifier='FrozenBackboneClassifier'
):
    loader = dict(
        batch_size=12,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='SplicedDataset',
            source=dict(type='SklearnDigits', split='test'),
            classes=CLASSES,
            tile_size=32,
            length=20,
            test_mode=True,
            pipeline=[dict(type='ComposeTiles'), dict(type='PackInputs')],
        ),
    )
    return Config(
        {
            'default_scope': 'mmpretrain',
            'model': dict(
                type=classifier,
                backbone=dict(
                    type='ResNet', depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1)
                ),
                **copy.deepcopy(HEADS[head]),
            ),
            'data_preprocessor': dict(mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True),
            f'{split}_dataloader': loader,
            f'{split}_evaluator': [dict(type='KeepMaps')],
            f'{split}_cfg': loop or {},
            'custom_hooks': [dict(type='SeeMaps')],
            'work_dir': str(tmp_path / 'work'),
            'randomness': dict(seed=0),
            'log_level': 'ERROR',
            # Runners of one name share their logger and visualizer.
            'experiment_name': tmp_path.name,
        }
    )


def run(cfg, split='test'):
    SeeMaps.shapes.clear()
    runner = Runner.from_cfg(cfg)
    runner.model.init_weights()
    torch.nn.init.normal_(runner.model.head.fc.weight, std=0.5)
    metrics = getattr(runner, split)()
    return runner, metrics, torch.stack(KeepMaps.maps)


def expected_maps(runner, method='inherent'):
    dataset = runner.test_dataloader.dataset
    inputs = torch.stack([dataset[index]['inputs'] for index in range(len(dataset))])
    inputs = runner.model.data_preprocessor(dict(inputs=inputs))['inputs']
    return class_maps(runner.model, inputs, method=method)


@pytest.mark.parametrize('classifier', ['FrozenBackboneClassifier', 'ImageClassifier'])
@pytest.mark.parametrize('head', HEADS)
def test_metrics_and_hooks_see_maps(tmp_path, head, classifier):
    cfg = config(tmp_path, head, loop=dict(type='ClassMapTestLoop'), classifier=classifier)
    runner, metrics, maps = run(cfg)
    assert metrics == {'keep/count': 20}
    assert SeeMaps.shapes == [(10, 4, 4)] * 2
    torch.testing.assert_close(maps, expected_maps(runner))
    assert not runner.model._forward_hooks


def test_validation_loop_does_the_same(tmp_path):
    cfg = config(tmp_path, split='val', loop=dict(type='ClassMapValLoop'))
    _, metrics, maps = run(cfg, 'val')
    assert metrics == {'keep/count': 20}
    assert maps.shape == (20, 10, 4, 4)


def test_post_hoc_maps(tmp_path):
    cfg = config(tmp_path, loop=dict(type='ClassMapTestLoop', method='GradCAM'))
    runner, _, maps = run(cfg)
    torch.testing.assert_close(maps, expected_maps(runner, 'GradCAM'))
    assert all(parameter.grad is None for parameter in runner.model.parameters())


def test_half_precision_still_gives_maps_of_floats(tmp_path):
    cfg = config(tmp_path, loop=dict(type='ClassMapTestLoop', fp16=True))
    runner, _, maps = run(cfg)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected_maps(runner), atol=0.1, rtol=0.1)


def test_unknown_method_is_refused_when_the_loop_is_built(tmp_path):
    runner = Runner.from_cfg(config(tmp_path, loop=dict(type='ClassMapTestLoop', method='x')))
    with pytest.raises(ValueError, match="but got 'x'"):
        runner.test()


@pytest.mark.parametrize('head', HEADS)
def test_maps_from_stored_features(tmp_path, head):
    loop = dict(
        type='FeatureCacheClassMapTestLoop',
        cache=dict(cache_dir=str(tmp_path / 'cache'), storage='fp32'),
    )
    cfg = config(tmp_path, head, loop=loop)
    runner, metrics, maps = run(cfg)
    assert metrics == {'keep/count': 20}
    torch.testing.assert_close(maps, expected_maps(runner), atol=1e-5, rtol=1e-4)
    assert isinstance(next(iter(runner.test_loop.dataloader))['inputs'], Features)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(method='GradCAM'), "'inherent' with the feature cache"),
        (dict(cache=dict(store='auto')), "`store` to be 'maps' for class maps"),
    ],
)
@pytest.mark.parametrize('split', ['Val', 'Test'])
def test_stored_features_have_limits(tmp_path, options, words, split):
    loop = dict(type=f'FeatureCacheClassMap{split}Loop', **options)
    runner = Runner.from_cfg(config(tmp_path, split=split.lower(), loop=loop))
    with pytest.raises(ValueError, match=words):
        getattr(runner, split.lower())()
