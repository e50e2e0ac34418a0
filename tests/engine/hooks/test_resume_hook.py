"""Resumed runs follow their own config, and leave the files of other runs alone."""

import math
import shutil

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from tiny_cache_run import make_cfg, make_images

from mhc_plugin.engine import ResumeHook

COSINE = dict(type='CosineAnnealingLR', by_epoch=True)
WARM_UP = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=5),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2, 4], gamma=0.1),
]


@HOOKS.register_module(force=True)
class NoteRates(Hook):
    """Note the learning rate of every iteration."""

    def __init__(self, rates):
        self.rates = rates

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.optimizer.param_groups[0]['lr'])


@pytest.fixture
def images(tmp_path):
    """Twelve images: three iterations an epoch."""
    return make_images(tmp_path / 'images')


@pytest.fixture
def train(images, tmp_path):
    """Train, and give the learning rate of every iteration."""

    def run(name, epochs, scheduler, resume=None, **options):
        cfg = make_cfg(images, tmp_path / name, cached=False, epochs=epochs)
        cfg.param_scheduler = scheduler
        cfg.default_hooks.resume = dict(type='ResumeHook')
        cfg.merge_from_dict(options)
        if resume is not None:
            cfg.load_from, cfg.resume = str(tmp_path / resume), True
        runner, rates = Runner.from_cfg(cfg), []
        runner.register_hook(NoteRates(rates))
        runner.train()
        return rates, runner

    return run


def test_more_epochs_follow_the_new_schedule(train):
    train('a', 3, COSINE)
    rates, _ = train('b', 6, COSINE, resume='a/epoch_3.pth')
    expected = [0.05 * (1 + math.cos(math.pi * epoch / 6)) for epoch in (3, 4, 5)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(3)])


@pytest.mark.parametrize('scheduler', [COSINE, WARM_UP, [*WARM_UP, COSINE]])
def test_as_a_run_of_that_config_has_them(train, scheduler):
    train('a', 1, dict(type='ConstantLR', factor=0.3, by_epoch=True))
    whole, _ = train('whole', 4, scheduler)
    rates, _ = train('b', 4, scheduler, resume='a/epoch_1.pth')
    # The first epoch's three iterations are done.
    assert rates == whole[3:]
    assert len(set(rates)) > 1


def test_another_rate_and_decay(train):
    train('a', 1, COSINE)
    options = {'optim_wrapper.optimizer.lr': 0.4, 'optim_wrapper.optimizer.weight_decay': 0.2}
    whole, _ = train('whole', 3, COSINE, **options)
    rates, runner = train('b', 3, COSINE, resume='a/epoch_1.pth', **options)
    assert rates == whole[3:]
    (group,) = runner.optim_wrapper.optimizer.param_groups
    assert (group['weight_decay'], group['momentum']) == (0.2, 0.9)
    # The momentum of the weights goes on.
    assert all(
        'momentum_buffer' in state for state in runner.optim_wrapper.optimizer.state.values()
    )


def test_a_schedule_is_begun_where_a_checkpoint_of_weights_has_none(train, tmp_path):
    train('a', 2, COSINE)
    path = tmp_path / 'a' / 'epoch_2.pth'
    content = torch.load(path, weights_only=False)
    del content['optimizer'], content['param_schedulers']
    torch.save(content, path)
    whole, _ = train('whole', 4, COSINE)
    assert train('b', 4, COSINE, resume='a/epoch_2.pth')[0] == whole[6:]


@pytest.mark.parametrize('scheduler', [COSINE, WARM_UP])
def test_unchanged_config_takes_over_what_is_stored(train, scheduler, tmp_path, monkeypatch):
    whole, _ = train('a', 4, scheduler)
    shutil.copy(tmp_path / 'a' / 'epoch_3.pth', tmp_path / 'a.pth')
    monkeypatch.setattr('mhc_plugin.engine.hooks.resume_hook._replay', pytest.fail)
    assert train('b', 4, scheduler, resume='a.pth')[0] == whole[9:]


class TestNotWellDefined:
    def test_a_schedule_of_scores(self, train):
        train('a', 1, COSINE)
        plateau = dict(type='ReduceOnPlateauLR', monitor='multi-label/mAP', rule='greater')
        with pytest.raises(
            ValueError,
            match=r'ReduceOnPlateauLR cannot be followed from epoch 2 on: it depends on the scores '
            r'.*--cfg-options load_from=CHECKPOINT',
        ):
            train('b', 3, plateau, resume='a/epoch_1.pth')

    def test_iterations_of_another_batch_size(self, train):
        train('a', 1, WARM_UP)
        changed = [dict(WARM_UP[0], end=9), WARM_UP[1]]
        with pytest.raises(
            ValueError, match=r'LinearLR .* had made 3 in 1 epochs, and an epoch of this one has 6'
        ):
            train('b', 3, changed, resume='a/epoch_1.pth', **{'train_dataloader.batch_size': 2})
        # By epochs it is.
        train('c', 3, COSINE, resume='a/epoch_1.pth', **{'train_dataloader.batch_size': 2})


class TestBestCheckpoints:
    """Scores of NaN-free toy runs differ from epoch to epoch; `less` makes a later one better."""

    @pytest.fixture(
        params=[['multi-label/mAP'], ['multi-label/mAP', 'multi-label/mAP_num_classes']]
    )
    def best(self, request):
        return {
            'default_hooks.checkpoint.save_best': request.param,
            'default_hooks.checkpoint.rule': 'greater',
            'train_cfg.val_interval': 1,
        }

    @pytest.fixture
    def better(self, monkeypatch):
        """Every score is better than the last, so that the last best is deleted."""
        from mhc_plugin.evaluation import MultiLabelMeanAP

        scores = iter(range(100))
        compute = MultiLabelMeanAP.compute_metrics
        monkeypatch.setattr(
            MultiLabelMeanAP,
            'compute_metrics',
            lambda self, results: dict.fromkeys(compute(self, results), next(scores)),
        )

    def bests(self, folder):
        return {path.name: path.stat().st_mtime_ns for path in folder.glob('best_*.pth')}

    def test_a_forked_run_keeps_the_other_runs(self, train, best, better, tmp_path):
        train('a', 2, COSINE, **best)
        before = self.bests(tmp_path / 'a')
        assert len(before) == len(best['default_hooks.checkpoint.save_best'])
        train('b', 4, COSINE, resume='a/epoch_2.pth', **best)
        assert self.bests(tmp_path / 'a') == before
        # Its own best, and one of them for each metric.
        assert {name.rpartition('_')[2] for name in self.bests(tmp_path / 'b')} == {'4.pth'}
        assert len(self.bests(tmp_path / 'b')) == len(before)

    def test_a_copied_run_replaces_its_own(self, train, best, better, tmp_path):
        train('a', 2, COSINE, **best)
        before = self.bests(tmp_path / 'a')
        shutil.copytree(tmp_path / 'a', tmp_path / 'b')
        train('b', 4, COSINE, resume='b/epoch_2.pth', **best)
        assert self.bests(tmp_path / 'a') == before
        assert {name.rpartition('_')[2] for name in self.bests(tmp_path / 'b')} == {'4.pth'}

    def test_a_run_that_goes_on_replaces_its_own(self, train, best, better, tmp_path):
        train('a', 2, COSINE, **best)
        train('a', 4, COSINE, resume='a/epoch_2.pth', **best)
        assert {name.rpartition('_')[2] for name in self.bests(tmp_path / 'a')} == {'4.pth'}

    def test_a_run_with_a_folder_for_checkpoints(self, train, best, better, tmp_path):
        best['default_hooks.checkpoint.out_dir'] = str(tmp_path / 'out')
        train('a', 2, COSINE, **best)
        train('b', 4, COSINE, resume='out/a/epoch_2.pth', **best)
        assert self.bests(tmp_path / 'out' / 'a')
        assert {name.rpartition('_')[2] for name in self.bests(tmp_path / 'out' / 'b')} == {'4.pth'}


def test_it_is_registered():
    assert HOOKS.get('ResumeHook') is ResumeHook
