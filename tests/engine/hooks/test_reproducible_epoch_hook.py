import copy
import logging
import pickle
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmpretrain.registry import HOOKS
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mhc_plugin.engine import ReproducibleEpochHook
from mhc_plugin.engine.hooks.reproducible_epoch_hook import SeededFetch


class Draws(Dataset):
    """Each sample is its index and one number of each generator."""

    metainfo = {}

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return [index, random.random(), np.random.random(), torch.rand(1).item()]

    def full_init(self):
        pass


class Twice(Dataset):
    """A wrapper, in whose indices every sample stands twice."""

    def __init__(self):
        self.dataset = Draws()

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self.dataset[index % 6]


class Batches(Draws):
    def __getitems__(self, indices):
        return [super(Batches, self).__getitem__(index) for index in indices]


def draws():
    return [random.random(), np.random.random(), torch.rand(1).item()]


def make_runner(loader, seed=5, epoch=0, rank=0, loop=EpochBasedTrainLoop):
    return SimpleNamespace(
        seed=seed,
        epoch=epoch,
        rank=rank,
        train_dataloader=loader,
        train_loop=object.__new__(loop),
        logger=logging.getLogger('test'),
    )


def run_epoch(hook, runner, epoch):
    """All samples of an epoch by index, as the loop draws them."""
    runner.epoch = epoch
    hook.before_train_epoch(runner)
    rows = {}
    for i, batch in enumerate(runner.train_dataloader):
        hook.before_train_iter(runner, batch_idx=i, data_batch=batch)
        rows.update((row[0], row[1:]) for row in batch)
    return rows


def make_loader(num_workers=0, batch_size=2, dataset=None, **kwargs):
    dataset = Draws() if dataset is None else dataset
    sampler = DefaultSampler(dataset, shuffle=True, seed=0)
    return DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=list, **kwargs
    )


class TestTransforms:
    @pytest.mark.parametrize(
        'kwargs',
        [
            dict(),
            dict(batch_size=3),
            dict(num_workers=1),
            dict(num_workers=2, prefetch_factor=1),
            dict(num_workers=2, persistent_workers=True),
            pytest.param(
                dict(num_workers=1, persistent_workers=True, multiprocessing_context='spawn'),
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_sample_depends_on_seed_and_epoch_alone(self, kwargs):
        hook = ReproducibleEpochHook()
        runner = make_runner(make_loader())
        hook.before_train(runner)
        expected = [run_epoch(hook, runner, epoch) for epoch in range(3)]

        hook = ReproducibleEpochHook()
        runner = make_runner(make_loader(**kwargs))
        hook.before_train(runner)
        # As a resumed run that starts with epoch 1 and one that has seen epoch 0.
        for epoch in (1, 2, 0):
            assert run_epoch(hook, runner, epoch) == expected[epoch]

    def test_samples_epochs_and_seeds_differ(self):
        hook = ReproducibleEpochHook()
        seen = []
        for seed in (5, 6):
            runner = make_runner(make_loader(), seed=seed)
            hook.before_train(runner)
            for epoch in range(2):
                seen += run_epoch(hook, runner, epoch).values()
        numbers = [number for row in seen for number in row]
        assert len(set(numbers)) == len(numbers) == 2 * 2 * 6 * 3

    def test_the_outermost_index_counts(self):
        hook = ReproducibleEpochHook()
        runner = make_runner(make_loader(dataset=Twice()))
        hook.before_train(runner)
        rows = [row for batch in runner.train_dataloader for row in batch]
        assert len(rows) == 12
        assert len({row[1] for row in rows}) == 12

    def test_a_dataset_that_fetches_batches_is_left_alone(self):
        hook = ReproducibleEpochHook()
        dataset = Batches()
        runner = make_runner(make_loader(dataset=dataset))
        hook.before_train(runner)
        assert len(run_epoch(hook, runner, 0)) == 6
        assert '__getitems__' not in vars(dataset)

    def test_training_twice_reaches_workers_that_still_run(self):
        hook = ReproducibleEpochHook()
        runner = make_runner(make_loader(num_workers=1, persistent_workers=True))
        hook.before_train(runner)
        first = run_epoch(hook, runner, 0)
        runner.seed = 6
        hook.before_train(runner)
        second = run_epoch(hook, runner, 0)
        assert first.keys() == second.keys()
        assert first != second

    def test_a_dataset_can_still_be_copied_and_pickled(self):
        dataset = Draws()
        dataset.__getitems__ = SeededFetch(dataset)
        for other in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset))):
            assert other.__getitems__.dataset is other
            assert other.__getitems__([1]) == dataset.__getitems__([1])

    def test_global_states_are_as_they_were(self):
        fetch = SeededFetch(Draws())
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        expected = draws()
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        fetch([0, 1])
        assert draws() == expected


class TestProcess:
    @pytest.mark.parametrize('kwargs', [dict(), dict(num_workers=1, persistent_workers=True)])
    def test_draws_of_the_process_do_not_depend_on_what_was_before(self, kwargs):

        def draw_in_epoch(epochs):
            hook, runner = ReproducibleEpochHook(), make_runner(make_loader(**kwargs))
            hook.before_train(runner)
            for epoch in epochs:
                run_epoch(hook, runner, epoch)
                drawn = draws()
            return drawn

        torch.manual_seed(1)
        uninterrupted = draw_in_epoch([0, 1])
        torch.manual_seed(2)
        assert draw_in_epoch([1]) == uninterrupted

    def test_processes_and_epochs_draw_differently(self):
        hook, seen = ReproducibleEpochHook(), []
        for rank in range(2):
            runner = make_runner(make_loader(), rank=rank)
            hook.before_train(runner)
            for runner.epoch in range(2):
                hook.before_train_epoch(runner)
                seen.append(torch.rand(1).item())
        assert len(set(seen)) == 4

    def test_batches_after_the_first_go_on(self):
        hook, runner = ReproducibleEpochHook(), make_runner(make_loader())
        hook.before_train(runner)
        hook.before_train_iter(runner, batch_idx=0)
        first = draws()
        hook.before_train_iter(runner, batch_idx=1)
        assert draws() != first


class TestSampler:
    def test_gets_the_seed_of_the_runner(self):
        runner = make_runner(make_loader(), seed=7)
        ReproducibleEpochHook().before_train(runner)
        assert runner.train_dataloader.sampler.seed == 7

    def test_in_a_batch_sampler(self):
        dataset = Draws()
        sampler = DefaultSampler(dataset, seed=0)
        loader = DataLoader(dataset, batch_sampler=BatchSampler(sampler, 2, False))
        ReproducibleEpochHook().before_train(make_runner(loader, seed=7))
        assert sampler.seed == 7


def test_iteration_based_loop_is_told(caplog):
    loader = make_loader()
    hook, runner = ReproducibleEpochHook(), make_runner(loader, loop=IterBasedTrainLoop)
    with caplog.at_level(logging.WARNING):
        hook.before_train(runner)
    assert 'IterBasedTrainLoop has no epochs' in caplog.text
    assert '__getitems__' not in vars(loader.dataset)
    hook.before_train_epoch(runner)


def test_registered():
    assert HOOKS.get('ReproducibleEpochHook') is ReproducibleEpochHook
