"""Epochs that depend on seed and number alone, so that a resumed run repeats none of them."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from mmpretrain.registry import HOOKS
from torch.utils.data import DataLoader, IterableDataset, Sampler

from mhc_plugin.models import BaseMultiHeadClsHead
from mhc_plugin.utils.seeding import sample_seed, seeded


class SeededFetch:
    """Fetch samples of a dataset, each with random numbers of (seed, epoch, index).

    torch's data loader asks a dataset's ``__getitems__`` for a whole batch where there is one, so
    an instance of this class put there reaches every map-style dataset, wrapped or not. Seed and
    epoch lie in shared memory, where a persistent worker, whose copy of the dataset is as old as
    the worker, sees them change.

    Args:
        dataset (Sequence): The dataset.
    """

    def __init__(self, dataset: Sequence) -> None:
        self.dataset = dataset
        self.state = torch.zeros(2, dtype=torch.int64).share_memory_()

    def set_state(self, seed: int, epoch: int) -> None:
        """Set seed and epoch, in this process and in workers."""
        self.state[0], self.state[1] = seed, epoch

    def __call__(self, indices: Sequence[int]) -> list:
        """Fetch the samples of a batch.

        Args:
            indices (Sequence[int]): Their indices.

        Returns:
            list: The samples.
        """
        seed, epoch = self.state.tolist()
        samples = []
        for index in indices:
            with seeded(seed, epoch, int(index)):
                samples.append(self.dataset[index])
        return samples


@HOOKS.register_module()
class ReproducibleEpochHook(Hook):
    """Make every epoch a function of the seed and the epoch's number.

    A run that is resumed from the checkpoint of an epoch then ends with the same weights, bit for
    bit on CPU, as one that was never interrupted. MMEngine alone starts the random states anew and
    builds the sampler before it reads the checkpoint's seed. So this hook

    - gives the sampler the runner's seed, which after a resume is the checkpoint's;
    - seeds torch, NumPy and ``random`` from (seed, rank, epoch) before every epoch;
    - makes what a head of ours draws, first weights and dropout, depend on the seed and the names
      of its own classes, so that it is the same in any company;
    - makes random transforms draw from (seed, epoch, index of the sample), with any number of
      workers, persistent or not. A dataset that defines ``__getitems__`` itself is left alone: it
      fetches whole batches its own way.

    In an iteration-based loop, which starts its workers before any hook runs and has no epochs, it
    only sets the seeds once, and says so.
    """

    priority = 'VERY_HIGH'
    _head: BaseMultiHeadClsHead | None = None
    _classes: list[str] | None = None

    def before_run(self, runner: Runner) -> None:
        """Let heads draw by the names of their classes, before the runner draws first weights.

        Args:
            runner (Runner): The runner of the training process.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # A runner that only tests keeps the config of a loop, which asking for it would build.
        trains = isinstance(runner._train_loop, BaseLoop)
        if not trains or not isinstance(getattr(model, 'head', None), BaseMultiHeadClsHead):
            return
        self._head = model.head
        seeds = [runner.seed]
        broadcast_object_list(seeds)
        # A loop may not have built its loader yet.
        dataset = getattr(runner.train_dataloader, 'dataset', None)
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes is not None:
            self._classes = [str(name) for name in classes]
            self._head.name_classes(self._classes, seeds[0])

    def before_train(self, runner: Runner) -> None:
        """Hand the seed to the sampler, and to the dataset where there are epochs.

        Args:
            runner (Runner): The runner of the training process.
        """
        # Under `diff_rank_seed` each process has its own, but samplers must agree.
        seeds = [runner.seed]
        broadcast_object_list(seeds)
        self._seed = seeds[0]
        if self._classes is not None:
            # Dropout of a resumed run is that of the run that it goes on.
            self._head.name_classes(self._classes, self._seed)
        loader = runner.train_dataloader
        for sampler in _samplers(loader):
            if hasattr(sampler, 'seed'):
                sampler.seed = self._seed

        self._fetch = None
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            runner.logger.warning(
                f'{type(runner.train_loop).__name__} has no epochs, so the random transforms of a '
                'resumed run differ from those of an uninterrupted one.'
            )
        elif _fetches_single_samples(loader):
            self._fetch = _seeded_fetch(loader.dataset)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed everything that is drawn in this process and in the workers.

        Args:
            runner (Runner): The runner of the training process.
        """
        if self._fetch is not None:
            self._fetch.set_state(self._seed, runner.epoch)
        self._seed_process(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed this process again once the first batch is there.

        Starting an epoch's workers draws a random number, and persistent workers are started in a
        run's first epoch only.

        Args:
            runner (Runner): The runner of the training process.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): Not used.
        """
        if batch_idx == 0:
            self._seed_process(runner)

    def _seed_process(self, runner: Runner) -> None:
        seed = sample_seed(self._seed, runner.rank, runner.epoch)
        random.seed(seed)
        np.random.seed(seed)
        if get_device() == 'cpu':
            # To seed devices that are not there takes as long as a step from the feature cache.
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)
        if self._head is not None:
            self._head.seed_dropout(runner.rank, runner.epoch)


def _samplers(loader: DataLoader) -> Iterator[Sampler]:
    yield loader.sampler
    # With a `batch_sampler` of the config, `loader.sampler` is not the one in use.
    yield loader.batch_sampler
    yield getattr(loader.batch_sampler, 'sampler', None)


def _fetches_single_samples(loader: DataLoader) -> bool:
    dataset = loader.dataset
    return not isinstance(dataset, IterableDataset) and not hasattr(type(dataset), '__getitems__')


def _seeded_fetch(dataset: Sequence) -> SeededFetch:
    """The fetch of a dataset; the one it has, which running workers share, if it has one."""
    fetch = vars(dataset).get('__getitems__')
    if not isinstance(fetch, SeededFetch):
        fetch = dataset.__getitems__ = SeededFetch(dataset)
    return fetch
