"""Training through the feature cache is training, minus the backbone."""

import logging

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from tiny_cache_run import (
    CROP,
    FLIP,
    TinyBackbone,
    head_weights,
    make_cfg,
    make_images,
    pipeline,
    run,
)

from mhc_plugin.features.dataset import FeatureDataset
from mhc_plugin.features.store import FeatureStore
from mhc_plugin.utils.seeding import seeded

HEADS = dict(
    multifc=dict(),
    max=dict(pool='max'),
    lse=dict(pool='lse', lse_r=4.0),
    dropout=dict(dropout=0.5),
    multiconv=dict(type='ConvMultiHeadClsHead', conv_channels=4),
    convfc=dict(type='ConvClsHead', conv_channels=4),
    baseline=dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss')),
)


@pytest.fixture(autouse=True)
def count_from_zero():
    TinyBackbone.num_images = 0


def with_head(name, **kwargs):
    neck = dict(type='GlobalAveragePooling') if name == 'baseline' else None
    return dict(head=HEADS[name], neck=neck, **kwargs)


def assert_same_weights(one, other, **tolerance):
    one, other = head_weights(one), head_weights(other)
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], msg=name, **tolerance)


@HOOKS.register_module(force=True)
class RecordHook(Hook):
    """Notes the calls of hooks, and what is in the batches."""

    def __init__(self):
        self.calls = []
        self.samples = []

    def _after_iter(self, runner, batch_idx, data_batch=None, outputs=None, mode='train'):
        self.calls.append((mode, batch_idx))
        self.samples.append([sample.sample_idx for sample in data_batch['data_samples']])

    def before_train(self, runner):
        self.calls.append(type(runner.train_dataloader.dataset).__name__)

    def after_val_epoch(self, runner, metrics=None):
        self.calls.append(dict(metrics))


# ---- the same as the long way


@pytest.mark.parametrize('head', HEADS)
def test_weights_are_those_of_a_training_on_images(images, tmp_path, head):
    cached = run(make_cfg(images, tmp_path / 'a', **with_head(head)))
    assert TinyBackbone.num_images <= 12 + 2  # and one each to see the shapes
    plain = run(make_cfg(images, tmp_path / 'b', cached=False, **with_head(head)))
    assert TinyBackbone.num_images >= 12 * 4
    assert_same_weights(cached, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    'option',
    [
        dict(custom_hooks=[dict(type='EMAHook', momentum=0.1)]),
        dict(
            custom_hooks=[
                dict(
                    type='EarlyStoppingHook', monitor='multi-label/mAP', patience=1, min_delta=100.0
                )
            ]
        ),
        dict(optim_wrapper=dict(type='CPUAmpOptimWrapper', optimizer=dict(type='SGD', lr=0.1))),
        dict(optim_wrapper=dict(accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1))),
    ],
    ids=['ema', 'early stopping', 'amp', 'accumulation'],
)
def test_options_of_mmengine_work_as_on_images(images, tmp_path, option):
    results = []
    for cached in (True, False):
        cfg = make_cfg(images, tmp_path / f'{cached}', cached, epochs=4, head=dict(dropout=0.5))
        cfg.merge_from_dict(option)
        cfg.train_cfg.val_interval = 1
        results.append(run(cfg))
    cached, plain = results
    assert cached.epoch == plain.epoch
    tolerance = 2e-2 if 'Amp' in str(option) else 1e-5
    assert_same_weights(cached, plain, rtol=tolerance, atol=tolerance)


def test_hooks_see_the_same_calls_batches_and_order(images, tmp_path):
    notes = []
    for cached in (True, False):
        cfg = make_cfg(images, tmp_path / f'{cached}', cached=cached)
        cfg.custom_hooks = [dict(type='RecordHook')]
        cfg.train_cfg.val_interval = 1
        runner = run(cfg)
        notes.append(next(hook for hook in runner.hooks if isinstance(hook, RecordHook)))
    assert notes[0].calls.pop(0) == 'FeatureDataset'
    assert notes[1].calls.pop(0) == 'MultiLabelDataset'
    assert notes[0].samples == notes[1].samples
    for one, other in zip(notes[0].calls, notes[1].calls):
        assert one == (pytest.approx(other) if isinstance(other, dict) else other)


def test_float16_moves_scores_by_little(images, tmp_path):
    val_images = make_images(tmp_path / 'val', 40, seed=1)
    cfg = dict(val_images=val_images, epochs=20)
    plain = run(make_cfg(images, tmp_path / 'a', cached=False, **cfg))
    cached = run(make_cfg(images, tmp_path / 'b', storage='fp16', **cfg))
    scores = [r.message_hub.get_scalar('val/multi-label/mAP').current() for r in (plain, cached)]
    assert scores[0] == pytest.approx(scores[1], abs=0.2)
    assert_same_weights(plain, cached, rtol=5e-3, atol=5e-3)


def test_checkpoint_tests_on_images_and_on_features_to_the_same_scores(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a', val_images=make_images(tmp_path / 'val', 20, seed=1))
    trained = run(cfg)
    score = trained.message_hub.get_scalar('val/multi-label/mAP').current()
    for cached in (True, False):
        cfg = make_cfg(images, tmp_path / 'a', cached, val_images=tmp_path / 'val')
        cfg.load_from = str(tmp_path / 'a' / 'epoch_3.pth')
        assert Runner.from_cfg(cfg).test()['multi-label/mAP'] == pytest.approx(score, abs=1e-4)


# ---- stages


def test_stages_that_no_head_reads_are_not_stored(images, tmp_path):
    head = dict(in_channels=(8, 12), connection='stages', head_stages=[0, 0, 0, 0])

    def cfg(name, cached=True):
        cfg = make_cfg(images, tmp_path / name, cached, head=head)
        cfg.model.backbone.out_indices = (0, 1)
        return cfg

    cached, plain = run(cfg('a')), run(cfg('b', cached=False))
    assert_same_weights(cached, plain, rtol=1e-4, atol=1e-6)
    feats = cached.train_dataloader.dataset.__getitems__([0, 5])['inputs']
    assert [tuple(feat.shape) for feat in feats] == [(2, 8), (2, 0)]


def test_all_stages_that_feed_heads_are_stored(images, tmp_path):
    head = dict(in_channels=(8, 12), connection='stages', head_stages=[0, 1, (0, 1), 1])

    def cfg(name, cached=True):
        cfg = make_cfg(images, tmp_path / name, cached, head=head)
        cfg.model.backbone.out_indices = (0, 1)
        return cfg

    cached, plain = run(cfg('a')), run(cfg('b', cached=False))
    assert_same_weights(cached, plain, rtol=1e-4, atol=1e-6)
    feats = cached.train_dataloader.dataset.__getitems__([0, 5])['inputs']
    assert [tuple(feat.shape) for feat in feats] == [(2, 8), (2, 12)]


# ---- views


def test_views_are_draws_of_seed_image_and_view(images, tmp_path):
    runner = run(make_cfg(images, tmp_path / 'a', transforms=pipeline(CROP, FLIP), views=3))
    stored = runner.train_dataloader.dataset
    assert stored.reader.layout.num_rows == 36
    for view in range(3):
        for index in (0, 7, 11):
            with seeded(3, index, view):
                packed = stored.dataset[index]
            batch = pseudo_collate([packed])
            expected = runner.model.extract_feat(runner.model.data_preprocessor(batch)['inputs'])[
                0
            ].mean((2, 3))
            (features,) = stored.reader.gather(np.array([view * 12 + index]))
            torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


def test_each_epoch_draws_one_view_per_image_from_seed_and_epoch(images, tmp_path):
    runner = run(make_cfg(images, tmp_path / 'a', transforms=pipeline(CROP, FLIP), views=3))
    dataset, drawn = runner.train_dataloader.dataset, []
    for epoch in range(40):
        dataset.set_epoch(epoch)
        batch = dataset.__getitems__(range(12))['inputs'][0]
        all_views = torch.stack(
            [dataset.reader.gather(np.arange(12) + 12 * view)[0] for view in range(3)]
        )
        is_view = (all_views == batch).all(2)
        assert is_view.any(0).all()
        drawn.append(is_view.float().argmax(0))
    drawn = torch.stack(drawn)
    assert len(drawn.unique(dim=0)) > 30
    assert (drawn.float().mean(0) - 1).abs().max() < 0.5
    dataset.set_epoch(5)
    again = dataset.__getitems__(range(12))['inputs'][0]
    dataset.set_epoch(6)
    assert not torch.equal(dataset.__getitems__(range(12))['inputs'][0], again)
    dataset.set_epoch(5)
    assert torch.equal(dataset.__getitems__(range(12))['inputs'][0], again)


def test_one_view_is_taken_where_nothing_is_random(images, tmp_path, caplog):
    cfg = make_cfg(images, tmp_path / 'a', views=4)
    cfg.log_level = 'INFO'
    runner = run(cfg)
    assert runner.train_dataloader.dataset.reader.layout.views == 1
    assert 'The pipeline draws no random numbers: one view per image is stored, not 4.' in log(
        tmp_path / 'a'
    )


def log(work_dir):
    return '\n'.join(path.read_text() for path in sorted(work_dir.glob('*/*.log')))


# ---- the dataset


def test_samples_are_made_when_they_are_asked_for_and_once_in_a_batch(
    images, tmp_path, monkeypatch
):
    loaders = run(make_cfg(images, tmp_path / 'a'))
    for dataset in (loaders.train_dataloader.dataset, loaders.val_dataloader.dataset):
        made, original = [], dataset.sample
        monkeypatch.setattr(dataset, 'sample', lambda row: made.append(row) or original(row))  # noqa: B023
        one, other = (dataset.__getitems__([2, 5, 7])['data_samples'] for _ in range(2))
        assert (len(one), made) == (3, [])
        assert one[1] is one[-2]
        assert made == [5]
        assert [sample.sample_idx for sample in one] == [2, 5, 7]
        assert one[1:] == [one[1], one[2]]
        assert sorted(made) == [2, 5, 7]
        # What is written into one is not seen in the next batch.
        assert other[0] is not one[0]
        one[0].set_pred_score(torch.rand(4))
        assert 'pred_score' not in other[0]
        with pytest.raises(IndexError):
            one[3]


def test_training_makes_no_data_samples(images, tmp_path, monkeypatch):
    monkeypatch.setattr(FeatureDataset, 'sample', None)
    for head in HEADS:
        cfg = make_cfg(images, tmp_path / head, **with_head(head))
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        run(cfg)


def test_an_index_gives_the_image_and_the_rest_is_handed_through(images, tmp_path):
    dataset = run(make_cfg(images, tmp_path / 'a')).train_dataloader.dataset
    assert isinstance(dataset, FeatureDataset)
    assert dataset[3]['inputs'].shape == (3, 16, 16)
    assert len(dataset) == 12
    assert dataset.metainfo == dataset.dataset.metainfo
    assert list(dataset.CLASSES) == ['class 0', 'class 1', 'class 2', 'class 3']
    assert dataset.get_cat_ids(0) == dataset.dataset.get_cat_ids(0)
    assert not hasattr(dataset, 'nothing_of_this_name')


def test_loader_keeps_sampler_batches_and_order(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.train_dataloader.update(batch_size=5, drop_last=True)
    loader = run(cfg).train_dataloader
    assert (loader.batch_size, loader.drop_last, len(loader)) == (5, True, 2)
    assert loader.sampler.shuffle is True
    assert [len(batch['data_samples']) for batch in loader] == [5, 5]


def test_custom_batch_sampler_is_kept(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.train_dataloader.batch_sampler = dict(type='AspectRatioBatchSampler')

    from mmengine.registry import DATA_SAMPLERS
    from torch.utils.data import BatchSampler

    @DATA_SAMPLERS.register_module(name='AspectRatioBatchSampler', force=True)
    class Reversed(BatchSampler):
        def __init__(self, sampler, batch_size):
            super().__init__(sampler, batch_size, False)

        def __iter__(self):
            return iter(list(super().__iter__())[::-1])

    loader = run(cfg).train_dataloader
    assert type(loader.batch_sampler) is Reversed
    assert len(list(loader)) == 3


def test_workers_give_the_same_features(images, tmp_path):
    features = []
    for workers in (0, 2):
        cfg = make_cfg(
            images,
            tmp_path / f'{workers}',
            transforms=pipeline(CROP, FLIP),
            views=2,
            cache_dir=str(tmp_path / f'cache{workers}'),
        )
        cfg.train_dataloader.num_workers = workers
        reader = run(cfg).train_dataloader.dataset.reader
        features.append(reader.gather(np.arange(24))[0])
    assert torch.equal(*features)


# ---- maps


def test_stored_maps_serve_a_head_that_needs_vectors(images, tmp_path):
    maps = run(make_cfg(images, tmp_path / 'a', store='maps'))
    assert maps.train_dataloader.dataset.__getitems__([0])['inputs'][0].shape == (1, 12, 2, 2)
    TinyBackbone.num_images = 0
    pooled = run(make_cfg(images, tmp_path / 'b'))
    assert TinyBackbone.num_images <= 2  # to see the shapes
    assert pooled.train_dataloader.dataset.__getitems__([0])['inputs'][0].shape == (1, 12)
    assert_same_weights(maps, pooled, rtol=1e-4, atol=1e-6)
    before = len(FeatureStore(tmp_path / 'cache').entries())
    run(make_cfg(images, tmp_path / 'c'))
    assert len(FeatureStore(tmp_path / 'cache').entries()) == before == 2


def test_maps_stored_for_another_pool_serve_too(images, tmp_path):
    run(make_cfg(images, tmp_path / 'a', **with_head('multiconv')))
    TinyBackbone.num_images = 0
    run(make_cfg(images, tmp_path / 'b', **with_head('max')))
    run(make_cfg(images, tmp_path / 'c', **with_head('baseline')))
    assert TinyBackbone.num_images <= 4


# ---- drawing, refusals


def test_drawing_hook_is_switched_off_with_one_sentence(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.default_hooks.visualization = dict(type='VisualizationHook', enable=True, interval=1)
    run(cfg)
    assert log(tmp_path / 'a').count('VisualizationHook is switched off') == 1


# ---- precision


def test_bfloat16_is_close_and_kept_apart(images, tmp_path):
    exact, rough = (
        run(
            make_cfg(images, tmp_path / precision, precision=precision)
        ).train_dataloader.dataset.reader.gather(np.arange(12))[0]
        for precision in ('fp32', 'bf16')
    )
    assert not torch.equal(exact, rough)
    assert (exact - rough).norm() < 0.05 * exact.norm()
    assert len(FeatureStore(tmp_path / 'cache').entries()) == 2


def test_progress_is_logged(images, tmp_path, monkeypatch):
    monkeypatch.setattr('mhc_plugin.features.build.LOG_INTERVAL', 0.0)
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.log_level = logging.getLevelName(logging.INFO)
    run(cfg)
    text = log(tmp_path / 'a')
    assert 'Features (train): storing 12 images, 12 in fp32, 576 B, in ' in text
    assert 'Features (train): 12/12 images, ' in text
    assert ' images/s, 0:00:00 left' in text
    assert 'Features (train): 12 images in 0:00:0' in text
    assert 'Features (val): found in ' in text
