"""Stored features in the place of a dataset of images."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mhc_plugin.utils.batch import Features

from .sample_codec import decode_sample
from .store import EntryReader
from .views import draw_views

# Data samples are made once and kept, which takes about 3 kB each; more are made again and again.
MAX_KEPT_SAMPLES = 200_000


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
        device (torch.device): Where the model is; data samples are put there.
        fresh_samples (bool): Whether to give copies of the data samples, for a model that writes
            into them. Without, they are the same objects every time, to be read only. Defaults to
            False.
    """

    def __init__(
        self,
        dataset: Sequence,
        reader: EntryReader,
        seed: int,
        device: torch.device,
        fresh_samples: bool = False,
    ) -> None:
        self.dataset = dataset
        self.reader = reader
        self.seed = seed
        self.device = device
        self.fresh_samples = fresh_samples
        self._samples: dict[int, DataSample] = {}
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
        layout = self.reader.layout
        self._views = draw_views(self.seed, epoch, layout.num_samples, layout.views)

    def __getitems__(self, indices: Sequence[int]) -> dict:
        """A finished batch.

        Args:
            indices (Sequence[int]): Indices of images.

        Returns:
            dict: ``inputs``, float32 :class:`Features` ``(N, ...)``, and ``data_samples``.
        """
        indices = np.asarray(indices, dtype=np.int64)
        rows = self._views[indices] * self.reader.layout.num_samples + indices
        samples = [self.sample(row) for row in rows.tolist()]
        if self.fresh_samples:
            samples = [sample.new() for sample in samples]
        return dict(inputs=Features(self.reader.gather(rows)), data_samples=samples)

    def sample(self, row: int) -> DataSample:
        """The data sample of a stored row, to be read only."""
        sample = self._samples.get(row)
        if sample is None:
            info = self.dataset.get_data_info(row % self.reader.layout.num_samples)
            sample = decode_sample(self.reader.sample(row), info).to(self.device)
            if len(self._samples) < MAX_KEPT_SAMPLES:
                self._samples[row] = sample
        return sample


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
    kind = PrefetchingLoader if is_far else DataLoader
    return kind(dataset, collate_fn=hand_on, pin_memory=is_far and loader.pin_memory, **settings)


class PrefetchingLoader(DataLoader):
    """Fetches batches of features ahead, in a thread of this process."""

    def __iter__(self) -> Iterator[dict]:
        # Samplers may draw from the generators of this thread.
        order = list(self.batch_sampler)
        with ThreadPoolExecutor(1) as pool:
            ahead = deque()
            for indices in chain(order, [None] * NUM_AHEAD):
                if indices is not None:
                    ahead.append(pool.submit(self._fetch, indices))
                if ahead and (indices is None or len(ahead) > NUM_AHEAD):
                    yield ahead.popleft().result()

    def _fetch(self, indices: list[int]) -> dict:
        batch = self.dataset.__getitems__(indices)
        return dict(batch, inputs=batch['inputs'].pin_memory()) if self.pin_memory else batch
