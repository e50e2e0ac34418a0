"""Compute the chunks of a cache entry: from images, or from stored maps."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mhc_plugin.models import FrozenBackboneClassifier

from .options import CacheOptions
from .progress import Progress
from .spec import FeatureSpec, backbone_features
from .store import ChunkBuffer, Entry, EntryReader, Layout, write_chunk
from .views import ViewDataset, stack_views

# Batches never cross the border of a chunk and are of a fixed size, so that features do not depend
# on where a build was interrupted, nor on the batch size of the training.
BATCH_SIZES = dict(cpu=32, cuda=128)

Batch = tuple[tuple[Tensor, ...], list[dict]]


class ChunkBatches:
    """Batch sampler over the rows of some chunks, in their order.

    Args:
        layout (Layout): The layout.
        chunks (Sequence[int]): The chunks.
        batch_size (int): Rows per batch.
    """

    def __init__(self, layout: Layout, chunks: Sequence[int], batch_size: int) -> None:
        self.layout = layout
        self.chunks = chunks
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        for chunk in self.chunks:
            rows = self.layout.rows_of(chunk)
            for start in range(0, len(rows), self.batch_size):
                yield list(rows[start : start + self.batch_size])

    def __len__(self) -> int:
        return sum(-(-len(self.layout.rows_of(c)) // self.batch_size) for c in self.chunks)


def build_from_images(
    entry: Entry,
    layout: Layout,
    chunks: Sequence[int],
    model: FrozenBackboneClassifier,
    spec: FeatureSpec,
    loader: DataLoader,
    seed: int,
    options: CacheOptions,
    progress: Progress,
) -> None:
    """Run the backbone and store what it gives.

    Images are decoded by as many workers as the loader has, in step with the backbone.

    Args:
        entry (Entry): The entry.
        layout (Layout): Its layout.
        chunks (Sequence[int]): The chunks to compute in this process.
        model (FrozenBackboneClassifier): The model.
        spec (FeatureSpec): What to store.
        loader (DataLoader): The loader of images that the features take the place of.
        seed (int): Seed of the views.
        options (CacheOptions): Precision and whether to compile.
        progress (Progress): Told what is done.
    """
    device = next(model.backbone.parameters()).device
    images = DataLoader(
        ViewDataset(loader.dataset, seed),
        batch_sampler=ChunkBatches(layout, chunks, BATCH_SIZES.get(device.type, 32)),
        num_workers=loader.num_workers,
        collate_fn=stack_views,
        pin_memory=loader.pin_memory and device.type == 'cuda',
        multiprocessing_context=loader.multiprocessing_context,
    )

    def batches() -> Iterator[Batch]:
        for inputs, samples in images:
            yield spec.select(backbone_features(model, inputs, spec.stage)), samples

    with fast_backbone(model, options):
        _write_chunks(entry, layout, chunks, batches(), progress)


def build_from_maps(
    entry: Entry,
    layout: Layout,
    chunks: Sequence[int],
    maps: EntryReader,
    spec: FeatureSpec,
    progress: Progress,
) -> None:
    """Pool stored maps and store what that gives.

    Args:
        entry (Entry): The entry.
        layout (Layout): Its layout.
        chunks (Sequence[int]): The chunks to compute in this process.
        maps (EntryReader): The maps.
        spec (FeatureSpec): What to store.
        progress (Progress): Told what is done.
    """

    def batches() -> Iterator[Batch]:
        for rows in ChunkBatches(layout, chunks, BATCH_SIZES['cpu']):
            yield spec.select(maps.gather(np.array(rows))), [maps.sample(row) for row in rows]

    _write_chunks(entry, layout, chunks, batches(), progress)


def _write_chunks(
    entry: Entry,
    layout: Layout,
    chunks: Sequence[int],
    batches: Iterator[Batch],
    progress: Progress,
) -> None:
    for number in chunks:
        chunk = ChunkBuffer(layout, number)
        while not chunk.is_full:
            features, samples = next(batches)
            chunk.append(features, samples)
            progress.advance(len(samples))
        write_chunk(entry, chunk)


@contextmanager
def fast_backbone(model: FrozenBackboneClassifier, options: CacheOptions) -> Iterator[None]:
    """Let the backbone run as fast as it can in the chosen precision; undone on exit."""
    backbone, device = model.backbone, next(model.backbone.parameters()).device
    backbone.to(memory_format=torch.channels_last)
    if options.compile:
        model.backbone = torch.compile(backbone)
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == 'bf16'):
            yield
    finally:
        model.backbone = backbone
        backbone.to(memory_format=torch.contiguous_format)
