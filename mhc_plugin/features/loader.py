"""Put stored features in the place of a loader's images, computing those that are missing."""

import atexit
import os
import shutil
from contextlib import ExitStack, suppress
from logging import Logger
from pathlib import Path

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from torch.utils.data import DataLoader

from .build import FeaturePlan, Progress, fill
from .dataset import FeatureDataset, replace_dataset
from .extractor import FeatureExtractor
from .options import CacheOptions
from .processes import Processes
from .store import (
    Entry,
    EntryReader,
    FeatureStore,
    Layout,
    begin_entry,
    finish_entry,
    format_bytes,
    is_shared,
)

# Of a GPU's free memory; the rest is for training.
GPU_SHARE = 0.5
# Of the main memory; beyond it, features are read from mapped files, which is slower and takes what
# memory there is.
CPU_SHARE = 0.125


def cached_loader(
    runner: Runner, loader: DataLoader, options: CacheOptions, name: str, training: bool
) -> DataLoader:
    """Make sure that the features of a loader's images are stored, and give a loader of them.

    In a distributed run every process computes its share, and all have to call this.

    Args:
        runner (Runner): The runner; its model has its weights.
        loader (DataLoader): The loader of images.
        options (CacheOptions): The options.
        name (str): What the images are for, such as ``'train'``, for log lines.
        training (bool): Whether the model is trained on them.

    Returns:
        DataLoader: A loader with the same sampler, batch size and order, whose dataset is a
        :class:`FeatureDataset`.

    Raises:
        ValueError: If model, data and cache cannot go together.
        OSError: If the disk has no room.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    extractor = FeatureExtractor.of(model, options.store, training)
    _check_loader(loader)
    _switch_off_drawing(runner)
    processes, logger, name = Processes(), runner.logger, f'Features ({name})'
    # Samplers and transforms of all processes follow the first one's seed.
    seed = processes.from_main(lambda: runner.seed)
    store = FeatureStore(options.cache_dir)
    plan = processes.from_main(
        lambda: FeaturePlan.make(extractor, loader.dataset, seed, options, logger)
    )
    entry = store.entry(plan.key)

    # Who finds the entry complete reads it without the lock, which others may hold, and for which
    # a folder that may only be read has no room.
    try:
        reader = processes.each(lambda: EntryReader(entry))
        _log_found(logger, name, entry, reader.layout)
    except FileNotFoundError:
        reader = _stored(entry, plan, store, extractor, loader, options, name, processes, logger)
    if processes.is_main and not is_shared(plan.description):
        # No other run will ever look for it.
        atexit.register(shutil.rmtree, entry.path, ignore_errors=True)

    num_classes = None
    if training and model.takes_targets:
        classes = loader.dataset.metainfo.get('classes', ())
        num_classes = getattr(model.head, 'num_classes', len(classes))
    dataset = FeatureDataset(loader.dataset, reader, seed, num_classes)
    device, number = extractor.device, processes.number
    # While it is trained on, all processes take as many steps, and can ask one another.
    fits = processes.all(_fits(reader.layout, device, number)) and (training or number == 1)
    if fits:
        dataset.move_to(device, processes.rank, number)
        logger.info(
            f'{name}: kept in the memory of {device}'
            + (f', by each of {number} processes its share' if number > 1 else '')
        )
    return replace_dataset(loader, dataset, is_far=device.type == 'cuda' and not fits)


def _stored(
    entry: Entry,
    plan: FeaturePlan,
    store: FeatureStore,
    extractor: FeatureExtractor,
    loader: DataLoader,
    options: CacheOptions,
    name: str,
    processes: Processes,
    logger: Logger,
) -> EntryReader:
    """Store what is missing of an entry, and open it."""

    def begin() -> tuple[Layout, list[int]]:
        waits = f'{name}: %s is storing the same features; waiting for it'
        lock.enter_context(store.lock(entry, lambda owner: logger.info(waits, owner)))
        return begin_entry(entry, plan.description, plan.layout)

    with ExitStack() as lock:
        layout, missing = processes.from_main(begin)
        if not missing:
            _log_found(logger, name, entry, layout)
        else:
            _log_start(logger, name, entry, layout, missing)
            share = missing[processes.rank :: processes.number]
            rows = sum(len(layout.rows_of(chunk)) for chunk in share)
            progress = Progress(logger, name, rows)
            processes.each(
                lambda: fill(entry, plan, layout, share, extractor, loader, options, progress)
            )
        processes.from_main(lambda: finish_entry(entry, plan.description, layout))
        # Under the lock: nobody removes what is not open yet.
        return processes.each(lambda: EntryReader(entry))


def _log_found(logger: Logger, name: str, entry: Entry, layout: Layout) -> None:
    logger.info(f'{name}: found in {entry.path}, {format_bytes(layout.num_bytes)}')


def _log_start(logger: Logger, name: str, entry: Entry, layout: Layout, missing: list[int]) -> None:
    shapes = ' and '.join('x'.join(map(str, layout.shapes[i])) for i in layout.positions)
    views = f' x {layout.views} views' if layout.views > 1 else ''
    there = layout.num_chunks - len(missing)
    begun = f'; {there} of {layout.num_chunks} chunks are there' if there else ''
    logger.info(
        f'{name}: storing {layout.num_samples} images{views}, {shapes} in {layout.storage}, '
        f'{format_bytes(layout.num_bytes)}, in {entry.path}{begun}'
    )


def _check_loader(loader: DataLoader) -> None:
    if not hasattr(loader.dataset, 'get_data_info') or not hasattr(loader.dataset, '__len__'):
        raise ValueError(
            'The feature cache needs a dataset with a length and `get_data_info`, as those of '
            f'MMEngine have, but got `{type(loader.dataset).__name__}`.'
        )
    collate = getattr(loader.collate_fn, 'func', loader.collate_fn)
    if collate not in (default_collate, pseudo_collate):
        raise ValueError(
            'The feature cache makes batches itself and needs `collate_fn` to be `default_collate` '
            f'or `pseudo_collate`, but got `{getattr(collate, "__name__", collate)}`.'
        )


def _switch_off_drawing(runner: Runner) -> None:
    for hook in runner.hooks:
        if isinstance(hook, VisualizationHook) and hook.enable:
            hook.enable = False
            runner.logger.warning(
                f'{type(hook).__name__} is switched off: it draws the images of a batch, and with '
                'the feature cache a batch holds features.'
            )


def _fits(layout: Layout, device: torch.device, num_processes: int) -> bool:
    """Whether a device has room for the share of the features that a process holds."""
    if device.type == 'cuda':
        free, _ = torch.cuda.mem_get_info(device)
        # What torch has taken and does not use is free to torch.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return layout.num_bytes / num_processes < GPU_SHARE * (free + cached)
    # The processes of a machine share the pages of mapped files.
    return num_processes == 1 and layout.num_bytes < CPU_SHARE * _free_memory()


def _free_memory() -> int:
    """Bytes that this machine and, in a container, its limit have left at most."""
    free = [os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')]
    with suppress(OSError, StopIteration):
        lines = Path('/proc/meminfo').read_text().splitlines()
        free.append(1024 * int(next(x for x in lines if x.startswith('MemAvailable')).split()[1]))
    with suppress(OSError, ValueError):  # 'max' is no number
        free.append(int(Path('/sys/fs/cgroup/memory.max').read_text()))
    return min(free)
