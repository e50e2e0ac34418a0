"""Put stored features in the place of a loader's images, computing those that are missing."""
import atexit
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.dist import barrier, broadcast_object_list, get_rank, get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.engine.hooks import VisualizationHook
from torch import nn
from torch.utils.data import DataLoader

from mhc_plugin.feature_cache import (
    Entry,
    EntryReader,
    FeatureStore,
    Layout,
    begin_entry,
    finish_entry,
    format_bytes,
    is_shared,
)

from .cache_options import CacheOptions
from .feature_builder import build_from_images, build_from_maps
from .feature_dataset import FeatureDataset, replace_dataset
from .feature_plan import FeaturePlan
from .feature_spec import check_model
from .progress import Progress

# Of a GPU's free memory; the rest is for training.
GPU_SHARE = 0.5

T = TypeVar('T')


def cached_loader(runner: Runner, loader: DataLoader, options: CacheOptions, name: str,
                  training: bool) -> DataLoader:
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
    # Samplers and transforms of all processes follow the first one's seed.
    seed = _from_main(lambda: runner.seed)
    reader = _stored_features(runner, model, loader, options, f'Features ({name})', seed)
    device = next(model.backbone.parameters()).device
    on_device = _fits(reader.layout, device)
    if on_device:
        reader.move_to(device)
        runner.logger.info(f'Features ({name}): kept in the memory of {device}')
    dataset = FeatureDataset(loader.dataset, reader, seed, device, fresh_samples=not training)
    return replace_dataset(loader, dataset, pin_memory=loader.pin_memory and not on_device)


def _stored_features(runner: Runner, model: nn.Module, loader: DataLoader, options: CacheOptions,
                     name: str, seed: int) -> EntryReader:
    store, logger = FeatureStore(options.cache_dir), runner.logger
    plan = _from_main(lambda: FeaturePlan.make(model, loader.dataset, seed, options, logger).
                      over_stored_maps(store))
    entry = store.entry(plan.key)

    def on_wait(owner: str) -> None:
        logger.info(f'{name}: {owner} is storing the same features; waiting for it')

    is_main = get_rank() == 0
    with store.lock(entry, on_wait) if is_main else nullcontext():
        layout, missing = _from_main(lambda: begin_entry(entry, plan.description, plan.layout))
        share = missing[get_rank()::get_world_size()]
        if missing:
            _log_start(runner, name, entry, layout, missing)
        progress = Progress(logger, name, sum(len(layout.rows_of(chunk)) for chunk in share))
        if share and plan.maps_key is not None:
            maps = EntryReader(store.entry(plan.maps_key))
            build_from_maps(entry, layout, share, maps, plan.spec, progress)
        elif share:
            build_from_images(entry, layout, share, model, plan.spec, loader, plan.seed, options,
                              progress)
        barrier()
        if missing:
            progress.finish()
        if is_main:
            finish_entry(entry, plan.description, layout)
        barrier()
    if not missing:
        logger.info(f'{name}: found in {entry.path}, {format_bytes(layout.num_bytes)}')
    if is_main and not is_shared(plan.description):
        # No other run will ever look for it.
        atexit.register(shutil.rmtree, entry.path, ignore_errors=True)
    return EntryReader(entry)


def _from_main(compute: Callable[[], T]) -> T:
    """Let the main process compute something, and all have it, or its error."""
    outcome = [None, None]
    if get_rank() == 0:
        try:
            outcome[0] = compute()
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def _log_start(runner: Runner, name: str, entry: Entry, layout: Layout, missing: list[int]) -> None:
    shapes = ' and '.join('x'.join(map(str, layout.shapes[i])) for i in layout.positions)
    views = f' x {layout.views} views' if layout.views > 1 else ''
    begun = '' if len(missing) == layout.num_chunks else (
        f'; {layout.num_chunks - len(missing)} of {layout.num_chunks} chunks are there')
    runner.logger.info(
        f'{name}: storing {layout.num_samples} images{views}, {shapes} in {layout.storage}, '
        f'{format_bytes(layout.num_bytes)}, in {entry.path}{begun}')


def _check_loader(loader: DataLoader) -> None:
    if not hasattr(loader.dataset, 'get_data_info') or not hasattr(loader.dataset, '__len__'):
        raise ValueError(
            'The feature cache needs a dataset with a length and `get_data_info`, as those of '
            f'MMEngine have, but got `{type(loader.dataset).__name__}`.')
    collate = getattr(loader.collate_fn, 'func', loader.collate_fn)
    if collate not in (default_collate, pseudo_collate):
        raise ValueError(
            'The feature cache makes batches itself and needs `collate_fn` to be `default_collate` '
            f'or `pseudo_collate`, but got `{getattr(collate, "__name__", collate)}`.')


def _switch_off_drawing(runner: Runner) -> None:
    for hook in runner.hooks:
        if isinstance(hook, VisualizationHook) and hook.enable:
            hook.enable = False
            runner.logger.warning(
                f'{type(hook).__name__} is switched off: it draws the images of a batch, and with '
                'the feature cache a batch holds features.')


def _fits(layout: Layout, device: torch.device) -> bool:
    """Whether a GPU has room for all features."""
    if device.type != 'cuda':
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return layout.num_bytes < GPU_SHARE * free
