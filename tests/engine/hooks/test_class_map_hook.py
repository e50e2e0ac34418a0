import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend
from mmpretrain.registry import VISBACKENDS
from PIL import Image

from mhc_plugin.engine.hooks import ClassMapHook, class_map_hook

CLASSES = [str(digit) for digit in range(10)]


@VISBACKENDS.register_module()
class RememberImages(LocalVisBackend):
    """A back end that keeps what it was asked to show."""

    shown: list = []

    def add_image(self, name, image, step=0, **kwargs):
        type(self).shown.append((name, step, image))


def loader(**kwargs):
    dataset = dict(
        type='SplicedDataset',
        source=dict(type='SklearnDigits', split='test'),
        classes=CLASSES,
        tile_size=32,
        length=8,
        pipeline=[dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))],
        **kwargs,
    )
    return dict(
        batch_size=4,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=not kwargs),
    )


def config(tmp_path, hook, **options):
    cfg = Config(
        dict(
            default_scope='mmpretrain',
            model=dict(
                type='FrozenBackboneClassifier',
                backbone=dict(
                    type='ResNet', depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1)
                ),
                head=dict(type='MultiHeadClsHead', num_classes=10, in_channels=64, dropout=0.5),
            ),
            data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True),
            train_dataloader=loader(),
            val_dataloader=loader(test_mode=True),
            val_evaluator=[dict(type='MultiLabelMeanAP')],
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            train_cfg=dict(by_epoch=True, max_epochs=3),
            val_cfg=dict(),
            default_hooks=dict(checkpoint=None, logger=None),
            custom_hooks=[] if hook is None else [dict(type='ClassMapHook', **hook)],
            visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='RememberImages')]),
            randomness=dict(seed=0),
            work_dir=str(tmp_path / 'work'),
            experiment_name=tmp_path.name,
            log_level='ERROR',
        )
    )
    for name, value in options.items():
        cfg[name] = value
    return cfg


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """Panels, whose drawing takes long, are small here; their arguments are kept."""
    RememberImages.shown = []
    calls = []

    def draw_panel(*args):
        calls.append(args)
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(class_map_hook, 'draw_panel', draw_panel)
    RememberImages.calls = calls
    return RememberImages


def train(tmp_path, hook, **options):
    runner = Runner.from_cfg(config(tmp_path, hook, **options))
    runner.train()
    return runner


def steps(shown):
    return [(name, step) for name, step, _ in shown.shown]


def test_same_images_before_every_n_epochs_and_at_the_end(tmp_path, shown):
    train(tmp_path, dict(interval=2, indices=[5, 1]))
    assert steps(shown) == [(f'class_maps_{index}', step) for step in (0, 2, 3) for index in (5, 1)]
    first, last = shown.calls[0], shown.calls[-2]
    np.testing.assert_array_equal(first[0], last[0])
    assert first[0].shape == (64, 64, 3)
    assert list(first[2]) == CLASSES
    assert first[3].sum() == 4
    assert last[4] == 'image 5, step 3'
    # The head has been trained in between.
    assert not np.allclose(first[1][0].scores, last[1][0].scores)
    assert first[1][0].maps.shape == (10, 4, 4)


def test_the_end_is_drawn_once(tmp_path, shown):
    train(tmp_path, dict(interval=3, num_images=1))
    assert steps(shown) == [('class_maps_0', 0), ('class_maps_0', 3)]


def test_training_goes_on_as_if_nothing_had_been_drawn(tmp_path):
    weights = []
    for hook in (None, dict(interval=1, num_images=2), dict(interval=1, method='GradCAM')):
        path = tmp_path / str(len(weights))
        path.mkdir()
        weights.append(train(path, hook).model.head.fc.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_nothing_happens_when_off(tmp_path, shown, monkeypatch):
    monkeypatch.setattr(ClassMapHook, '_load', None)
    train(tmp_path, dict(enable=False, method='no method at all'))
    assert shown.shown == []


def test_stored_features_do_not_hide_the_images(tmp_path, shown):
    cache = dict(cache_dir=str(tmp_path / 'cache'))
    train(
        tmp_path,
        dict(num_images=1),
        **{
            'train_cfg': dict(type='FeatureCacheTrainLoop', max_epochs=2, cache=cache),
            'val_cfg': dict(type='FeatureCacheValLoop', cache=cache),
        },
    )
    assert steps(shown) == [('class_maps_0', 0), ('class_maps_0', 2)]
    assert shown.calls[0][0].shape == (64, 64, 3)


def test_loop_by_iterations(tmp_path, shown):
    train(
        tmp_path,
        dict(num_images=1, interval=1),
        train_cfg=dict(by_epoch=False, max_iters=3, val_interval=10),
    )
    assert steps(shown) == [('class_maps_0', 0), ('class_maps_0', 3)]


def test_no_validation_no_pictures(tmp_path, shown):
    train(tmp_path, {}, val_dataloader=None, val_evaluator=None, val_cfg=None)
    assert shown.shown == []


def test_pictures_of_the_usual_back_end(tmp_path, monkeypatch):
    monkeypatch.undo()
    train(
        tmp_path,
        dict(num_images=1),
        visualizer=dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')]),
        train_cfg=dict(by_epoch=True, max_epochs=1),
    )
    pictures = sorted((tmp_path / 'work').rglob('class_maps_0_*.png'))
    assert [picture.name for picture in pictures] == ['class_maps_0_0.png', 'class_maps_0_1.png']
    assert Image.open(pictures[0]).size[0] > 500


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (dict(interval=0), '`interval` to be an int of at least 1'),
        (dict(num_images=0), '`num_images` to be an int of at least 1'),
        (dict(method='NoCAM'), "'inherent' or one of"),
    ],
)
def test_arguments_that_do_not_fit(arguments, words):
    with pytest.raises(ValueError, match=words):
        ClassMapHook(**arguments)


def test_image_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r'`indices` to be in 0\.\.7, .* but got 8'):
        train(tmp_path, dict(indices=[8]))


def test_copies_protect_the_samples(tmp_path, monkeypatch):
    """A second drawing starts from the sample as it was packed."""
    items = []
    original = ClassMapHook._draw

    def draw(self, runner, step):
        original(self, runner, step)
        items.append(copy.deepcopy(self._items[0]['data_samples']))

    monkeypatch.setattr(ClassMapHook, '_draw', draw)
    train(tmp_path, dict(num_images=1))
    assert all('pred_score' not in item for item in items)
