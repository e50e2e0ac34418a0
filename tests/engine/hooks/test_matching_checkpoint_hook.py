"""Checkpoints and data that do not belong together are refused before anything is done."""

import pytest
import torch
from mmengine.runner import Runner
from tiny_cache_run import make_cfg, make_images

from mhc_plugin import apis

CLASSES = [f'class {c}' for c in range(4)]


@pytest.fixture
def cfg(tmp_path):
    return make_cfg(make_images(tmp_path / 'images'), tmp_path / 'work', cached=False, epochs=2)


@pytest.fixture
def checkpoint(cfg, tmp_path):
    """Of one epoch of this config; with something done to it."""

    def make(change=lambda content: None):
        cfg.train_cfg.max_epochs = 1
        apis.train(cfg, work_dir=tmp_path / 'first')
        cfg.train_cfg.max_epochs = 2
        path = tmp_path / 'a.pth'
        content = torch.load(tmp_path / 'first' / 'epoch_1.pth', weights_only=False)
        change(content)
        torch.save(content, path)
        return path

    return make


def without(prefix):
    def change(content):
        for name in [name for name in content['state_dict'] if name.startswith(prefix)]:
            del content['state_dict'][name]

    return change


def five_classes(content):
    content['state_dict']['head.fc.weight'] = torch.ones(5, 1, 12)
    content['state_dict']['head.fc.bias'] = torch.ones(5, 1)


def other_order(content):
    content['meta']['dataset_meta']['classes'] = CLASSES[::-1]


def resume(cfg, path):
    apis.train(cfg, resume=path)


USES = [apis.test, apis.choose_thresholds, apis.load_model, resume]


@pytest.mark.parametrize('use', USES)
@pytest.mark.parametrize(
    ('change', 'sentence'),
    [
        (
            without('head.'),
            r'but it lacks head\.fc\.weight \(4, 1, 12\), head\.fc\.bias \(4, 1\)\.',
        ),
        (five_classes, r'but it lacks head\.fc\.weight \(4, 1, 12\), head\.fc\.bias \(4, 1\)\.'),
        (without('backbone.'), r'but it lacks backbone\.stages\.0\.0\.weight .* and \d+ more'),
    ],
)
def test_one_sentence_and_nothing_is_written(cfg, checkpoint, use, change, sentence):
    path = checkpoint(change)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f'Expected {path} to hold the weights of .*{sentence}'):
        use(cfg, path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob('work/*.pth'))


@pytest.mark.parametrize('use', [apis.test, apis.choose_thresholds, resume])
def test_classes_of_the_checkpoint(cfg, checkpoint, use):
    path = checkpoint(other_order)
    before = path.read_bytes()
    with pytest.raises(
        ValueError,
        match=r'Expected the classes of the \w+ data to be those of the checkpoint in the same '
        r"order, \['class 3', .*\], but got \['class 0', .*\]: they differ in the order",
    ):
        use(cfg, path)
    assert path.read_bytes() == before


def test_a_checkpoint_that_fits_is_used_everywhere(cfg, checkpoint):
    path = checkpoint()
    for use in USES:
        use(cfg, path)


def test_a_training_may_begin_from_other_weights(cfg, checkpoint, tmp_path):
    path = checkpoint(lambda content: (five_classes(content), other_order(content)))
    cfg.load_from = str(path)
    apis.train(cfg)
    assert (tmp_path / 'work' / 'epoch_2.pth').is_file()


def test_data_of_other_classes(cfg):
    cfg.val_dataloader.dataset.metainfo = dict(classes=CLASSES[::-1])
    with pytest.raises(
        ValueError, match='classes of the validation data to be those of the training data'
    ):
        apis.train(cfg)


def test_head_of_another_number_of_classes(cfg):
    cfg.model.head.num_classes = 5
    with pytest.raises(
        ValueError,
        match=r'`model\.head\.num_classes` to be the number of classes of '
        r'`train_dataloader\.dataset`, 4 .*, but got 5',
    ):
        apis.train(cfg)


def test_in_mmpretrains_own_tools(cfg, checkpoint):
    """Which know it from our runtime's `default_hooks`."""
    cfg.load_from = str(checkpoint(without('head.')))
    cfg.default_hooks.matching_checkpoint = dict(type='MatchingCheckpointHook')
    with pytest.raises(ValueError, match='it lacks head'):
        Runner.from_cfg(cfg).test()
