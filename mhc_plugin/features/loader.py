"""Put stored features in the place of a loader's images, computing those that are missing."""

import atexit
import shutil
from contextlib import ExitStack

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from torch import nn
from torch.utils.data import DataLoader

from .build import build_from_images, build_from_maps
from .dataset import FeatureDataset, replace_dataset
from .options import CacheOptions
from .plan import FeaturePlan
from .processes import Processes
from .progress import Progress
from .spec import check_model
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
        training (bool): Whether the model is trained on them. A model that predicts writes into
            data samples, and is given copies.

    Returns:
        DataLoader: A loader with the same sampler, batch size and order, whose dataset is a
        :class:`FeatureDataset`.

    Raises:
        ValueError: If model, data and cache cannot go together.
        OSError: If the disk has no room.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    check_model(model, training)
    _check_loader(loader)
    _switch_off_drawing(runner)
    processes = Processes()
    # Samplers and transforms of all processes follow the first one's seed.
    seed = processes.from_main(lambda: runner.seed)
    reader = _stored_features(runner, model, loader, options, f'Features ({name})', seed, processes)
    device = next(model.backbone.parameters()).device
    on_device = _fits(reader.layout, device)
    if on_device:
        reader.move_to(device)
        runner.logger.info(f'Features ({name}): kept in the memory of {device}')
    dataset = FeatureDataset(loader.dataset, reader, seed, device, fresh_samples=not training)
    return replace_dataset(loader, dataset, pin_memory=loader.pin_memory and not on_device)


def _stored_features(
    runner: Runner,
    model: nn.Module,
    loader: DataLoader,
    options: CacheOptions,
    name: str,
    seed: int,
    processes: Processes,
) -> EntryReader:
    store, logger = FeatureStore(options.cache_dir), runner.logger
    plan = processes.from_main(
        lambda: FeaturePlan.make(model, loader.dataset, seed, options, logger).over_stored_maps(
            store
        )
    )
    entry = store.entry(plan.key)

    def begin() -> tuple[Layout, list[int]]:
        lock.enter_context(
            store.lock(
                entry,
                lambda owner: logger.info(
                    f'{name}: {owner} is storing the same features; waiting for it'
                ),
            )
        )
        return begin_entry(entry, plan.description, plan.layout)

    with ExitStack() as lock:
        layout, missing = processes.from_main(begin)
        if missing:
            _log_start(runner, name, entry, layout, missing)
            share = missing[processes.rank :: processes.number]
            processes.each(
                lambda: _store_share(runner, model, loader, options, name, plan, layout, share)
            )
        processes.from_main(lambda: finish_entry(entry, plan.description, layout))
    if not missing:
        logger.info(f'{name}: found in {entry.path}, {format_bytes(layout.num_bytes)}')
    if processes.is_main and not is_shared(plan.description):
        # No other run will ever look for it.
        atexit.register(shutil.rmtree, entry.path, ignore_errors=True)
    return EntryReader(entry)


def _store_share(
    runner: Runner,
    model: nn.Module,
    loader: DataLoader,
    options: CacheOptions,
    name: str,
    plan: FeaturePlan,
    layout: Layout,
    chunks: list[int],
) -> None:
    store = FeatureStore(options.cache_dir)
    entry = store.entry(plan.key)
    progress = Progress(runner.logger, name, sum(len(layout.rows_of(chunk)) for chunk in chunks))
    if plan.maps_key is not None:
        maps = EntryReader(store.entry(plan.maps_key))
        build_from_maps(entry, layout, chunks, maps, plan.spec, progress)
    else:
        build_from_images(
            entry, layout, chunks, model, plan.spec, loader, plan.seed, options, progress
        )
    progress.finish()


def _log_start(runner: Runner, name: str, entry: Entry, layout: Layout, missing: list[int]) -> None:
    shapes = ' and '.join('x'.join(map(str, layout.shapes[i])) for i in layout.positions)
    views = f' x {layout.views} views' if layout.views > 1 else ''
    begun = (
        ''
        if len(missing) == layout.num_chunks
        else (f'; {layout.num_chunks - len(missing)} of {layout.num_chunks} chunks are there')
    )
    runner.logger.info(
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


def _fits(layout: Layout, device: torch.device) -> bool:
    """Whether a GPU has room for all features."""
    if device.type != 'cuda':
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return layout.num_bytes < GPU_SHARE * free
