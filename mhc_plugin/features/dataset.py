"""Stored features in the place of a dataset of images."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mhc_plugin.utils.batch import DataSamples, Features
from mhc_plugin.utils.known_pairs import KnownPairs

from .samples import decode_sample, target_table
from .store import EntryReader
from .views import draw_views

# Batches that are fetched while a GPU works on another.
NUM_AHEAD = 2


class FeatureDataset(Dataset):
    """A dataset whose batches hold stored features.

    A batch is fetched whole (``__getitems__``). A single item is that of the image dataset, so that
    who wants to draw an image gets it by its index, and so is everything else: ``metainfo``,
    ``get_data_info``, ``get_cat_ids``.

    Args:
        dataset (Sequence): The dataset of images.
        reader (EntryReader): Its features.
        seed (int): Seed of the draw of views.
        num_classes (int, optional): If given, labels are kept in one table and batches have
            ``targets`` of it, see :func:`target_table`. Defaults to None.
    """

    def __init__(
        self, dataset: Sequence, reader: EntryReader, seed: int, num_classes: int | None = None
    ) -> None:
        self.dataset = dataset
        self.reader = reader
        self.seed = seed
        self.targets: Tensor | KnownPairs | None = None
        if num_classes is not None:
            self.targets = target_table(dataset, reader, num_classes)
        self.set_epoch(0)

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        """The image of an index, with its data sample."""
        return self.dataset[index]

    def set_epoch(self, epoch: int) -> None:
        """Draw one view per image for an epoch."""
        layout, number = self.reader.layout, self.reader.layout.num_samples
        views = draw_views(self.seed, epoch, number, layout.views)
        self._rows = views * number + np.arange(number)

    def move_to(self, device: torch.device, rank: int = 0, number: int = 1) -> None:
        """Copy targets, and features or a share of them, into a device's memory.

        Args:
            device (torch.device): The device.
            rank, number (int): See :meth:`EntryReader.move_to`.
        """
        self.reader.move_to(device, rank, number)
        if self.targets is not None:
            self.targets = self.targets.to(device)

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """A finished batch.

        Args:
            indices (Sequence[int]): Indices of images.

        Returns:
            dict: ``inputs``, float32 :class:`Features` ``(N, ...)``, and ``data_samples``, new
            :class:`DataSamples`.
        """
        indices = np.asarray(indices, dtype=np.int64)
        rows = self._rows[indices]
        targets = self.targets
        if targets is not None:
            # One row per image, or, where the pipeline makes labels, per image and view.
            index = torch.from_numpy(indices if len(targets) == len(self) else rows)
            targets = targets.index_select(0, index.to(targets.device))
        samples = DataSamples(rows, self.sample, targets)
        return dict(inputs=Features(self.reader.gather(rows)), data_samples=samples)

    def sample(self, row: int) -> DataSample:
        """The data sample of a stored row, made anew."""
        info = self.dataset.get_data_info(row % self.reader.layout.num_samples)
        return decode_sample(self.reader.sample(row), info)


def hand_on(batch: dict) -> dict:
    """Collate function for batches that are finished."""
    return batch


def replace_dataset(loader: DataLoader, dataset: FeatureDataset, is_far: bool) -> DataLoader:
    """A loader with the same sampler, batches and order, and another dataset.

    Args:
        loader (DataLoader): The loader of images.
        dataset (FeatureDataset): The dataset of features.
        is_far (bool): Whether features have to be copied to a GPU. If so, they are read while it
            works on the batches before, and pinned where the loader of images pins.
    """
    settings: dict[str, Any] = dict(
        batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last
    )
    if type(loader.batch_sampler) is not BatchSampler:
        settings = dict(batch_sampler=loader.batch_sampler)
    pin_memory = is_far and loader.pin_memory
    features = FeatureLoader(dataset, collate_fn=hand_on, pin_memory=pin_memory, **settings)
    features.num_ahead = NUM_AHEAD if is_far else 0
    return features


class FeatureLoader(DataLoader):
    """A loader of finished batches, which it may fetch ahead in a thread of this process.

    Attributes:
        num_ahead (int): Batches that are fetched while the last one is in use.
    """

    num_ahead = 0

    def __iter__(self) -> Iterator[dict]:
        super().__iter__()  # draws a random number, as whatever loader would stand here
        if not self.num_ahead:
            yield from map(self.dataset.__getitems__, self.batch_sampler)
            return
        # Samplers may draw from the generators of this thread.
        order = list(self.batch_sampler)
        with ThreadPoolExecutor(1) as pool:
            ahead = deque()
            for indices in chain(order, [None] * self.num_ahead):
                if indices is not None:
                    ahead.append(pool.submit(self._fetch, indices))
                if ahead and (indices is None or len(ahead) > self.num_ahead):
                    yield ahead.popleft().result()

    def _fetch(self, indices: list[int]) -> dict:
        batch = self.dataset.__getitems__(indices)
        return {k: v.pin_memory() for k, v in batch.items()} if self.pin_memory else batch
