"""The command line's switch to loops over stored features."""

import argparse

import pytest
from mmengine.config import Config

from mhc_plugin.apis import train
from mhc_plugin.apis.caching import add_cache_arguments, cache_options, set_feature_cache


def parse(*args):
    parser = argparse.ArgumentParser()
    add_cache_arguments(parser)
    return cache_options(parser.parse_args(args))


def make_config(train_cfg, val_cfg=None):
    return Config(dict(train_cfg=train_cfg, val_cfg=val_cfg))


def test_options_that_were_given():
    assert parse() is None
    assert parse('--cache-features') == {}
    assert parse(
        '--cache-features',
        '--cache-dir',
        'x',
        '--views',
        '4',
        '--precision',
        'bf16',
        '--storage',
        'fp32',
        '--store',
        'maps',
        '--trust-mtime',
    ) == dict(
        cache_dir='x', views=4, precision='bf16', storage='fp32', store='maps', trust_mtime=True
    )


@pytest.mark.parametrize('option', ['--views=4', '--trust-mtime', '--cache-dir=x'])
def test_option_without_the_switch_is_refused(option):
    name = option.partition('=')[0]
    with pytest.raises(ValueError, match=f'Expected --cache-features beside {name}, which'):
        parse(option)


def test_loops_are_exchanged_and_keep_their_settings():
    cfg = make_config(dict(by_epoch=True, max_epochs=9, val_interval=3), dict(fp16=True))
    set_feature_cache(cfg, dict(views=4, storage='fp32'))
    assert cfg.train_cfg == dict(
        type='mmpretrain.FeatureCacheTrainLoop',
        max_epochs=9,
        val_interval=3,
        cache=dict(views=4, storage='fp32'),
    )
    assert cfg.val_cfg == dict(
        type='mmpretrain.FeatureCacheValLoop', fp16=True, cache=dict(views=4, storage='fp32')
    )


@pytest.mark.parametrize(
    'loop', ['EpochBasedTrainLoop', 'mmengine.EpochBasedTrainLoop', 'FeatureCacheTrainLoop']
)
def test_named_loops_of_the_same_kind_are_exchanged(loop):
    cfg = make_config(dict(type=loop, max_epochs=9, cache=dict(views=2, storage='fp32')))
    set_feature_cache(cfg, dict(views=4))
    assert cfg.train_cfg == dict(
        type='mmpretrain.FeatureCacheTrainLoop', max_epochs=9, cache=dict(views=4, storage='fp32')
    )
    assert cfg.val_cfg is None


def test_validation_with_class_maps_stores_maps():
    cfg = make_config(dict(by_epoch=True, max_epochs=1), dict(type='ClassMapValLoop'))
    set_feature_cache(cfg, dict(store='auto'))
    assert cfg.val_cfg == dict(
        type='mmpretrain.FeatureCacheClassMapValLoop', cache=dict(store='maps')
    )


def test_validation_loop_of_another_kind_keeps_its_images():
    cfg = make_config(dict(by_epoch=True, max_epochs=1), dict(type='RetrievalLoop'))
    set_feature_cache(cfg, {})
    assert cfg.val_cfg == dict(type='RetrievalLoop')


@pytest.mark.parametrize(
    ('train_cfg', 'name'),
    [
        (dict(by_epoch=False, max_iters=9), 'IterBasedTrainLoop'),
        (dict(type='IterBasedTrainLoop', max_iters=9), 'IterBasedTrainLoop'),
        (dict(type='MyLoop'), 'MyLoop'),
    ],
)
def test_training_without_epochs_is_refused(train_cfg, name):
    with pytest.raises(ValueError, match=f'place of `EpochBasedTrainLoop`, but .* with `{name}`'):
        set_feature_cache(make_config(train_cfg), {})


def test_training_through_the_cache_scores_as_without(tiny_cfg, tmp_path):
    cached = train(
        tiny_cfg,
        work_dir=tmp_path / 'a',
        feature_cache=dict(cache_dir=str(tmp_path / 'cache'), storage='fp32'),
    )
    plain = train(tiny_cfg, work_dir=tmp_path / 'b')
    assert type(cached.runner.train_loop).__name__ == 'FeatureCacheTrainLoop'
    assert cached.metrics == pytest.approx(plain.metrics, abs=1e-3)


def test_small_checkpoints_are_an_option(tiny_cfg, tmp_path):
    with pytest.raises(ValueError, match='Give `--backbone-weights PATH`'):
        train(tiny_cfg, work_dir=tmp_path / 'a', small_checkpoints=True)
