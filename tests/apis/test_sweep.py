"""Settings that are trained side by side end where runs of their own end."""

import copy

import pytest
import torch

from mhc_plugin.apis import load_config, sweep, train
from mhc_plugin.apis.sweep import train_together

VARY = {
    'optim_wrapper.optimizer.lr': [0.1, 0.01],
    'optim_wrapper.optimizer.weight_decay': [0.0, 0.1],
    'model.head.loss.head_reduction': ['sum', 'mean'],
}
HEADS = {
    'multifc': dict(type='MultiHeadClsHead', hidden_channels=(8,), dropout=0.3),
    'multiconv': dict(type='ConvMultiHeadClsHead', conv_channels=4),
    'convfc': dict(type='ConvClsHead', conv_channels=4, dropout=0.3),
    'multiatt': dict(type='AttentionMultiHeadClsHead'),
    'baseline': dict(type='MultiLabelLinearClsHead'),
}


@pytest.fixture
def cfg(tiny_cfg, tmp_path):
    tiny_cfg.train_cfg.max_epochs = 2
    tiny_cfg.optim_wrapper.optimizer.momentum = 0.9
    tiny_cfg.param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True)
    tiny_cfg.model.head.loss = dict(type='PerHeadBCELoss')
    # Runs of one name within a second share a logger, and its file.
    tiny_cfg.experiment_name = tmp_path.name
    return tiny_cfg


@pytest.fixture
def cache(tmp_path):
    return dict(cache_dir=str(tmp_path / 'cache'))


def weights(checkpoint):
    state = torch.load(checkpoint, map_location='cpu', weights_only=False)['state_dict']
    return {name: value for name, value in state.items() if name.startswith('head.')}


@pytest.mark.parametrize('head', HEADS)
def test_each_ends_where_its_own_run_ends(cfg, cache, tmp_path, head):
    cfg.model.head = dict(HEADS[head], num_classes=10, in_channels=64, loss=cfg.model.head.loss)
    if head == 'baseline':
        cfg.model.neck = dict(type='GlobalAveragePooling')
    found = sweep(cfg, VARY, [3], work_dir=tmp_path / 'sweep', feature_cache=cache)
    assert len(found) == 8
    own_weights = [weights(run.checkpoint) for run in found]
    first = next(iter(own_weights[0]))
    assert len({own[first].numpy().tobytes() for own in own_weights}) > 4
    # A run each of two that differ in everything.
    for index in (0, 3, 7):
        own = copy.deepcopy(cfg)
        own.merge_from_dict(found[index].options)
        own.experiment_name += f'-{index}'
        alone = train(
            own, work_dir=tmp_path / f'own{index}', seed=found[index].seed, feature_cache=cache
        )
        expected = weights(alone.checkpoint)
        assert own_weights[index].keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(own_weights[index][name], value, rtol=0, atol=1e-5)
        assert found[index].metrics == pytest.approx(alone.metrics, abs=1e-5)


def test_what_shapes_the_data_gets_a_pass_of_its_own(cfg, cache, tmp_path):
    vary = {'train_dataloader.batch_size': [4, 8], 'optim_wrapper.optimizer.lr': [0.1, 0.01]}
    found = sweep(cfg, vary, [0, 1], work_dir=tmp_path / 'sweep', feature_cache=cache)
    assert [(run.seed, *run.options.values()) for run in found] == [
        (seed, size, lr) for seed in (0, 1) for size in (4, 8) for lr in (0.1, 0.01)
    ]
    folders = {run.checkpoint.parent.relative_to(tmp_path / 'sweep').as_posix() for run in found}
    assert 'batch_size4_seed1/lr0.1' in folders
    assert len(folders) == 8
    assert all(len(run.losses) == 2 and run.error is None for run in found)
    # Its config is beside a checkpoint.
    own = load_config(found[1].checkpoint.parent / 'config.json')
    assert own.optim_wrapper.optimizer.lr == 0.01
    assert own.train_dataloader.batch_size == 4


def test_a_setting_that_diverges_leaves_the_others_alone(cfg, cache, tmp_path):
    vary = {'optim_wrapper.optimizer.lr': [0.1, 1e38]}
    good, bad = sweep(cfg, vary, [0], work_dir=tmp_path / 'both', feature_cache=cache)
    (alone,) = sweep(
        cfg,
        {'optim_wrapper.optimizer.lr': [0.1]},
        [0],
        work_dir=tmp_path / 'alone',
        feature_cache=cache,
    )
    assert good.losses == alone.losses
    assert good.metrics == alone.metrics
    assert bad.error.startswith('The loss is ')
    assert (bad.checkpoint, bad.metrics) == (None, {})
    with pytest.raises(FloatingPointError, match='The loss of every setting is infinite'):
        sweep(
            cfg,
            {'optim_wrapper.optimizer.lr': [1e38]},
            [0],
            work_dir=tmp_path / 'bad',
            feature_cache=cache,
        )


def test_what_cannot_share_a_pass(cfg, cache, tmp_path):
    other = copy.deepcopy(cfg)
    other.train_dataloader.batch_size = 4
    with pytest.raises(ValueError, match='Expected configs that differ in optim_wrapper, param_'):
        train_together(dict(a=cfg, b=other), work_dir=tmp_path)
    cfg.custom_hooks = [dict(type='EMAHook')]
    with pytest.raises(ValueError, match='EMAHook averages the weights of one head'):
        sweep(cfg, VARY, [0], work_dir=tmp_path, feature_cache=cache)
