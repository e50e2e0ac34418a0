"""A loss that is no number ends a run before anything bad is saved."""

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny_cache_run import make_cfg, make_images

from mhc_plugin.engine import FiniteLossHook


class Spoil(Hook):
    """Do something to the model before an iteration."""

    def __init__(self, iteration, spoil):
        self.iteration, self.spoil = iteration, spoil

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.spoil(runner.model)


class SpoilAfter(Spoil):
    priority = 'VERY_LOW'

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        pass

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        super().before_train_iter(runner, batch_idx)


def class_two(model):
    model.head.fc.weight.data[2] = float('inf')


def one_image(model):
    def spoil(module, inputs, outputs):
        outputs[-1][1] = float('nan')

    model.backbone.register_forward_hook(spoil)


@pytest.fixture
def train(tmp_path):
    """Train three iterations an epoch, with a hook that spoils something; give the runner."""
    images = make_images(tmp_path / 'images')

    def run(spoil, action='stop', validates=True):
        cfg = make_cfg(images, tmp_path / 'work', cached=False, epochs=3)
        if not validates:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.default_hooks.finite_loss = dict(type='FiniteLossHook', action=action)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(spoil)
        runner.train()
        return runner

    return run


def test_names_epoch_iteration_class_and_last_good_checkpoint(train, tmp_path):
    with pytest.raises(FloatingPointError) as caught:
        train(Spoil(4, class_two))
    assert str(caught.value) == (
        "The loss is nan in epoch 2, iteration 2 of it, of class 'class 2'; the last good "
        f'checkpoint is {tmp_path / "work" / "epoch_1.pth"}. '
        'Look at the data, or lower the learning rate; '
        '`--cfg-options default_hooks.finite_loss.action=warn` goes on.'
    )
    assert [path.name for path in tmp_path.glob('work/*.pth')] == ['epoch_1.pth']


def test_names_the_class_of_the_largest_logit_where_only_the_loss_is_none(train):
    def large(model):
        model.head.fc.bias.data[:] = 2e38
        model.head.fc.bias.data[3] = 3e38

    # The sum over classes is beyond float32.
    with pytest.raises(
        FloatingPointError,
        match=r"The loss is inf in epoch 1, .* where class 'class 3' has a logit",
    ):
        train(Spoil(0, large))


def test_names_the_image_whose_features_are_none(train):
    with pytest.raises(
        FloatingPointError,
        match=r'The loss is nan in epoch 1, iteration 1 of it, where the features of '
        r'\S+images/\d+\.png are not finite; no checkpoint was saved before',
    ):
        train(Spoil(0, one_image))


def test_weights_that_the_last_step_of_an_epoch_spoilt_are_not_saved(train, tmp_path):
    with pytest.raises(
        FloatingPointError,
        match=r'After epoch 2 head\.fc\.weight is not finite; the last good checkpoint is '
        r'.*epoch_1\.pth\.',
    ):
        train(SpoilAfter(5, class_two))
    assert [path.name for path in tmp_path.glob('work/*.pth')] == ['epoch_1.pth']


def test_goes_on_with_one_warning(train, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr(
        'mmengine.logging.MMLogger.warning', lambda self, text, *args: warnings.append(text)
    )
    # A metric would refuse such scores.
    runner = train(Spoil(4, class_two), action='warn', validates=False)
    assert runner.epoch == 3
    assert runner.model.head.training
    (sentence,) = [text for text in warnings if text.startswith('The loss is nan')]
    assert sentence.endswith('epoch_1.pth.')


def test_a_good_run_is_left_alone(train, tmp_path):
    runner = train(Spoil(99, class_two))
    assert torch.isfinite(runner.model.head.fc.weight).all()
    assert (tmp_path / 'work' / 'epoch_3.pth').is_file()


def test_action():
    with pytest.raises(ValueError, match=r"one of \('stop', 'warn'\), but got 'ignore'"):
        FiniteLossHook('ignore')
