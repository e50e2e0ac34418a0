"""Fill an entry of the cache: what it is made from, its key, and the chunks of features."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from logging import Logger

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mhc_plugin.utils.precision import full_float32

from .description import describe_dataset, summarize
from .extractor import FeatureExtractor
from .options import CacheOptions
from .store import (
    ChunkBuffer,
    Entry,
    EntryReader,
    FeatureStore,
    Layout,
    make_key,
    unshared,
    write_chunk,
)
from .versions import UndescribableError, library_version
from .views import PipelineTraits, ViewDataset, stack_views

# Libraries that read, transform and compute on pixels. Others count where a transform or a layer
# comes from them.
PIXEL_LIBRARIES = ('torch', 'torchvision', 'numpy', 'PIL', 'cv2', 'mmcv', 'mmpretrain')
# Batches never cross the border of a chunk and are of a fixed size, so that features do not depend
# on where a build was interrupted, nor on the batch size of the training.
BATCH_SIZES = dict(cpu=32, cuda=128)
LOG_INTERVAL = 10.0  # seconds


@dataclass(frozen=True)
class FeaturePlan:
    """An entry of the cache and how to fill it.

    Args:
        key (str): The entry's key.
        description (dict): What the key was made from.
        layout (Layout): The layout, for a new entry.
        seed (int): Seed of the views.
        maps_key (str, optional): Key of an entry of maps to pool, in the place of images.
    """

    key: str
    description: dict
    layout: Layout
    seed: int
    maps_key: str | None = None

    @classmethod
    def make(
        cls,
        extractor: FeatureExtractor,
        dataset: Sequence,
        seed: int,
        options: CacheOptions,
        logger: Logger,
    ) -> 'FeaturePlan':
        """Describe an extractor and a dataset, and look for stored maps that will do.

        Args:
            extractor (FeatureExtractor): What gives the features.
            dataset (Sequence): The dataset of images.
            seed (int): The runner's seed.
            options (CacheOptions): The options.
            logger (Logger): Told what is worth knowing.
        """
        traits = PipelineTraits.of(dataset)
        # Without random numbers all views are the same, whatever the seed.
        views, seed = (options.views, seed) if traits.is_random else (1, 0)
        if views < options.views:
            logger.info(
                'The pipeline draws no random numbers: one view per image is stored, not '
                f'{options.views}.'
            )
        description = dict(
            device=extractor.device.type,
            precision=options.precision,
            storage=options.storage,
            views=views,
            seed=seed if traits.is_random else None,
            libraries=[library_version(name) for name in PIXEL_LIBRARIES],
        )
        store = FeatureStore(options.cache_dir)
        try:
            hashes = store.file_hashes(options.trust_mtime)
            for name in ('preprocessor', 'backbone', 'neck', 'pool'):
                module = getattr(extractor, name)
                description[name] = None if module is None else summarize(module, hashes)
            # Labels that the pipeline makes are stored, and must not be out of date.
            description['data'] = describe_dataset(dataset, hashes, not traits.keeps_labels)
            hashes.save()
        except UndescribableError as error:
            logger.warning(
                f'These features are not shared with other runs, since what they are '
                f'made from cannot be described: {error}.'
            )
            description |= unshared(str(error))
        images, _ = stack_views([ViewDataset(dataset, seed)[0]])
        with full_float32():
            # Stages that are not read are of no size.
            shapes = [tuple(feat.shape[1:]) for feat in extractor(images)]
        shapes = tuple(None if shape == (0,) else shape for shape in shapes)
        layout = Layout.plan(len(dataset), views, shapes, options.storage)
        description['positions'] = list(layout.positions)
        plan = cls(make_key(description), description, layout, seed)
        return plan.over_stored_maps(store)

    def over_stored_maps(self, store: FeatureStore) -> 'FeaturePlan':
        """The same plan, from stored maps where there are any to pool."""
        if not self.description.get('pool') or store.entry(self.key).is_complete():
            return self
        for entry in store.entries():
            if self._can_pool(entry):
                description = {**self.description, 'pooled_from': entry.key}
                return replace(
                    self, key=make_key(description), description=description, maps_key=entry.key
                )
        return self

    def _can_pool(self, entry: Entry) -> bool:
        manifest = entry.read_manifest()
        stored, wanted = dict(manifest['description']), dict(self.description)
        positions = stored.pop('positions', ()), wanted.pop('positions')
        pools = stored.pop('pool', ''), wanted.pop('pool')
        return (
            manifest['complete']
            and stored == wanted
            and pools[0] is None
            and set(positions[1]) <= set(positions[0])
        )


def fill(
    entry: Entry,
    plan: FeaturePlan,
    layout: Layout,
    chunks: Sequence[int],
    extractor: FeatureExtractor,
    loader: DataLoader,
    options: CacheOptions,
    progress: 'Progress',
) -> None:
    """Compute chunks and write them: from images, or from stored maps.

    Args:
        entry (Entry): The entry.
        plan (FeaturePlan): How to fill it.
        layout (Layout): Its layout, which may be older than the plan's.
        chunks (Sequence[int]): The chunks to compute in this process.
        extractor (FeatureExtractor): What gives the features.
        loader (DataLoader): The loader of images that the features take the place of; they are
            decoded by as many workers as it has, in step with the backbone.
        options (CacheOptions): Precision, and the folder of the maps.
        progress (Progress): Told what is done.
    """
    device = extractor.device.type
    rows = ChunkRows(layout, chunks, BATCH_SIZES.get(device, 32))
    if plan.maps_key is None:
        batches = _from_images(extractor, plan.seed, rows, loader)
    else:
        maps = EntryReader(FeatureStore(options.cache_dir).entry(plan.maps_key))
        batches = _from_maps(extractor, maps, rows)
    is_bf16 = options.precision == 'bf16'
    if is_bf16:
        # A tenth faster; in float32 it makes no difference.
        extractor.backbone.to(memory_format=torch.channels_last)
    with full_float32(), torch.autocast(device, torch.bfloat16, is_bf16):
        for number in chunks:
            chunk = ChunkBuffer(layout, number)
            while not chunk.is_full:
                features, samples = next(batches)
                chunk.append(features, samples)
                progress.advance(len(samples))
            write_chunk(entry, chunk)
    if is_bf16:
        extractor.backbone.to(memory_format=torch.contiguous_format)
    progress.finish()


class ChunkRows:
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


Batches = Iterator[tuple[tuple[Tensor, ...], list[dict]]]


def _from_images(
    extractor: FeatureExtractor, seed: int, rows: ChunkRows, loader: DataLoader
) -> Batches:
    images = DataLoader(
        ViewDataset(loader.dataset, seed),
        batch_sampler=rows,
        num_workers=loader.num_workers,
        collate_fn=stack_views,
        pin_memory=loader.pin_memory and extractor.device.type == 'cuda',
        multiprocessing_context=loader.multiprocessing_context,
    )
    for inputs, samples in images:
        yield extractor(inputs), samples


def _from_maps(extractor: FeatureExtractor, maps: EntryReader, rows: ChunkRows) -> Batches:
    for batch in rows:
        yield extractor.reduce(maps.gather(np.array(batch))), [maps.sample(row) for row in batch]


class Progress:
    """Counts images, and logs the count, the rate and the remaining time now and then.

    Args:
        logger (Logger): The logger.
        name (str): What is computed.
        total (int): Number of images, views counted each.
    """

    def __init__(self, logger: Logger, name: str, total: int) -> None:
        self.logger = logger
        self.name = name
        self.total = total
        self.done = 0
        self._start = self._last = time.monotonic()

    def advance(self, count: int) -> None:
        """Count images that are done."""
        self.done += count
        now = time.monotonic()
        if now - self._last >= LOG_INTERVAL:
            self._last = now
            left = timedelta(seconds=round((self.total - self.done) / self.rate))
            self.logger.info(
                f'{self.name}: {self.done}/{self.total} images, '
                f'{self.rate:.1f} images/s, {left} left'
            )

    def finish(self) -> None:
        """Log the time it took."""
        took = timedelta(seconds=round(time.monotonic() - self._start))
        self.logger.info(f'{self.name}: {self.done} images in {took}, {self.rate:.1f} images/s')

    @property
    def rate(self) -> float:
        """Images per second so far."""
        return self.done / max(time.monotonic() - self._start, 1e-9)
