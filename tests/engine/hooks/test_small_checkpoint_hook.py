"""Checkpoints without the backbone, and models that put the two together again."""

import os

import pytest
import torch
from mmengine.runner import Runner
from tiny_cache_run import make_cfg, make_images, run

from mhc_plugin.apis import load_model
from mhc_plugin.models.backbone_weights import load_backbone
from mhc_plugin.utils.tensor_hash import hash_weights


@pytest.fixture
def images(tmp_path):
    return make_images(tmp_path / 'images')


@pytest.fixture
def published(images, tmp_path):
    """A checkpoint of a whole model, from which backbones are initialised."""
    torch.manual_seed(5)
    runner = Runner.from_cfg(make_cfg(images, tmp_path / 'published'))
    state = {
        f'backbone.{name}': torch.randn_like(value) if value.is_floating_point() else value
        for name, value in runner.model.backbone.state_dict().items()
    }
    for name in state:
        if name.endswith('running_var'):
            state[name].abs_()
    torch.save(dict(state_dict=state), tmp_path / 'published.pth')
    return tmp_path / 'published.pth'


def cfg_of(images, work_dir, published=None, small=True, **kwargs):
    cfg = make_cfg(images, work_dir, **kwargs)
    if published is not None:
        cfg.model.backbone.init_cfg = dict(
            type='Pretrained', checkpoint=str(published), prefix='backbone'
        )
    if small:
        cfg.default_hooks.small_checkpoint = dict(type='SmallCheckpointHook')
    return cfg


def read(work_dir, epoch=3):
    return torch.load(work_dir / f'epoch_{epoch}.pth', weights_only=False)


def test_checkpoint_holds_what_was_trained_and_names_the_backbone(images, tmp_path, published):
    runner = run(cfg_of(images, tmp_path / 'a', published))
    checkpoint = read(tmp_path / 'a')
    trained = {f'head.{name}' for name in runner.model.head.state_dict()}
    assert set(checkpoint['state_dict']) == trained | {'backbone_record'}
    assert checkpoint['meta']['backbone'] == dict(
        sha256=hash_weights(runner.model.backbone), source=str(published)
    )


def test_head_of_a_large_backbone_takes_some_kilobytes(images, tmp_path, published):
    runner = run(cfg_of(images, tmp_path / 'a', published))
    checkpoint = read(tmp_path / 'a')
    assert sum(x.numel() * x.element_size() for x in checkpoint['state_dict'].values()) < 1000
    assert (tmp_path / 'a' / 'epoch_3.pth').stat().st_size < 100_000
    assert runner.model.backbone.stages[0][0].weight.numel() * 4 > 800


@pytest.mark.parametrize('cached', [True, False])
def test_it_tests_to_the_same_scores(images, tmp_path, published, cached):
    val = make_images(tmp_path / 'val', 20, seed=1)
    trained = run(cfg_of(images, tmp_path / 'a', published, val_images=val))
    score = trained.message_hub.get_scalar('val/multi-label/mAP').current()
    # The hook is not needed to load.
    cfg = cfg_of(images, tmp_path / 'b', published, small=False, cached=cached, val_images=val)
    cfg.load_from = str(tmp_path / 'a' / 'epoch_3.pth')
    runner = Runner.from_cfg(cfg)
    assert runner.test()['multi-label/mAP'] == pytest.approx(score, abs=1e-4)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, trained.model.state_dict()[name]), name


@pytest.mark.parametrize('hooks', [[], [dict(type='EMAHook', momentum=0.1)]], ids=['plain', 'ema'])
def test_it_resumes_to_the_same_weights(images, tmp_path, published, hooks):
    cfg = cfg_of(images, tmp_path / 'a', published, epochs=4)
    cfg.custom_hooks = hooks
    whole = run(cfg)
    cfg = cfg_of(images, tmp_path / 'b', published, epochs=4)
    cfg.custom_hooks = hooks
    cfg.load_from, cfg.resume = str(tmp_path / 'a' / 'epoch_3.pth'), True
    resumed = run(cfg)
    assert resumed.epoch == 4
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name
    one, other = read(tmp_path / 'a', 4), read(tmp_path / 'b', 4)
    assert one['meta']['backbone'] == other['meta']['backbone']
    if hooks:
        assert not any('backbone.' in name for name in one['ema_state_dict'])
        for name, value in one['ema_state_dict'].items():
            assert torch.equal(value, other['ema_state_dict'][name]), name


def test_it_is_loaded_for_prediction(images, tmp_path, published):
    trained = run(cfg_of(images, tmp_path / 'a', published))
    model = load_model(
        cfg_of(images, tmp_path / 'b', published), tmp_path / 'a' / 'epoch_3.pth', 'cpu'
    )
    inputs = torch.rand(2, 3, 16, 16)
    assert torch.equal(model(inputs), trained.model.eval()(inputs))


@pytest.mark.parametrize('published_again', [True, False])
def test_another_backbone_is_refused(images, tmp_path, published, published_again):
    run(cfg_of(images, tmp_path / 'a', published))
    state = torch.load(published)
    state['state_dict']['backbone.stages.0.0.bias'][0] += 1e-3
    torch.save(state, published if published_again else tmp_path / 'other.pth')
    source = published if published_again else tmp_path / 'other.pth'
    cfg = cfg_of(images, tmp_path / 'b', source)
    cfg.load_from = str(tmp_path / 'a' / 'epoch_3.pth')
    if published_again:
        with pytest.raises(
            ValueError,
            match=r'This checkpoint holds no backbone. It was trained '
            r'on one with weights from .*published.pth .sha256 .{12}., but the '
            r'backbone of this model is another',
        ):
            Runner.from_cfg(cfg).test()
    else:
        # The right one is still where it came from.
        Runner.from_cfg(cfg).test()


def test_source_is_followed_where_the_config_has_none(images, tmp_path, published):
    trained = run(cfg_of(images, tmp_path / 'a', published))

    def test_again(name):
        cfg = cfg_of(images, tmp_path / name)
        cfg.load_from = str(tmp_path / 'a' / 'epoch_3.pth')
        runner = Runner.from_cfg(cfg)
        runner.test()
        return runner

    runner = test_again('b')
    assert hash_weights(runner.model.backbone) == hash_weights(trained.model.backbone)
    os.remove(published)
    with pytest.raises(ValueError, match='Use the config and the backbone weights'):
        test_again('c')


def test_backbone_of_a_whole_checkpoint_is_found_there(images, tmp_path, published):
    cfg = cfg_of(images, tmp_path / 'a')
    cfg.load_from = str(published)
    run(cfg)
    assert read(tmp_path / 'a')['meta']['backbone']['source'] == str(published)


def test_resuming_a_whole_checkpoint_does_not_make_it_the_source(images, tmp_path, published):
    """It is deleted as training goes on; the backbone comes from where the config says."""
    run(cfg_of(images, tmp_path / 'a', published, small=False))
    cfg = cfg_of(images, tmp_path / 'b', published, epochs=4)
    cfg.load_from, cfg.resume = str(tmp_path / 'a' / 'epoch_3.pth'), True
    run(cfg)
    assert read(tmp_path / 'b', 4)['meta']['backbone']['source'] == str(published)


def test_backbone_of_a_small_checkpoint_keeps_its_source(images, tmp_path, published):
    run(cfg_of(images, tmp_path / 'a', published))
    cfg = cfg_of(images, tmp_path / 'b')
    cfg.load_from = str(tmp_path / 'a' / 'epoch_3.pth')
    run(cfg)
    assert read(tmp_path / 'b')['meta']['backbone'] == read(tmp_path / 'a')['meta']['backbone']


def test_backbone_weights_of_the_config_are_the_source(images, tmp_path, published):
    cfg = cfg_of(images, tmp_path / 'a')
    cfg.backbone_weights = str(published)
    runner = Runner.from_cfg(cfg)
    load_backbone(runner.model, published)
    runner.train()
    assert read(tmp_path / 'a')['meta']['backbone']['source'] == str(published)


@pytest.mark.parametrize('weights', [None, 'none'])
def test_random_backbone_is_refused_before_training(images, tmp_path, weights):
    cfg = cfg_of(images, tmp_path / 'a')
    cfg.backbone_weights = weights
    with pytest.raises(
        ValueError, match='no use where its weights are random: they could not be found again'
    ):
        run(cfg)


def test_model_that_trains_its_backbone_is_refused(images, tmp_path):
    cfg = cfg_of(images, tmp_path / 'a', cached=False)
    cfg.model.type = 'ImageClassifier'
    cfg.model.data_preprocessor.type = 'ClsDataPreprocessor'
    with pytest.raises(ValueError, match=r'a `FrozenBackboneClassifier`.* got `ImageClassifier`'):
        run(cfg)
