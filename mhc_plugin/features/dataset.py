"""Stored features in the place of a dataset of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmpretrain.structures import DataSample
from torch.utils.data import BatchSampler, DataLoader, Dataset

from .sample_codec import decode_sample
from .store import EntryReader
from .views import draw_views

# Data samples are made once and kept, which takes about 3 kB each; more are made again and again.
MAX_KEPT_SAMPLES = 200_000


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
            dict: ``inputs``, a tuple of float32 features ``(N, ...)``, and ``data_samples``.
        """
        indices = np.asarray(indices, dtype=np.int64)
        rows = self._views[indices] * self.reader.layout.num_samples + indices
        samples = [self._sample(row) for row in rows.tolist()]
        if self.fresh_samples:
            samples = [sample.new() for sample in samples]
        return dict(inputs=self.reader.gather(rows), data_samples=samples)

    def _sample(self, row: int) -> DataSample:
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


def replace_dataset(loader: DataLoader, dataset: FeatureDataset, pin_memory: bool) -> DataLoader:
    """A loader with the same sampler, batches and order, and another dataset.

    Args:
        loader (DataLoader): The loader of images.
        dataset (FeatureDataset): The dataset of features.
        pin_memory (bool): Whether to pin the batches' memory.
    """
    settings: dict[str, Any] = dict(
        batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last
    )
    if type(loader.batch_sampler) is not BatchSampler:
        settings = dict(batch_sampler=loader.batch_sampler)
    return DataLoader(dataset, collate_fn=hand_on, pin_memory=pin_memory, **settings)
