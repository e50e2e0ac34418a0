"""What a run is about to do, in a few lines, before it does it."""

import textwrap
from collections.abc import Iterator

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from mmengine.runner.base_loop import BaseLoop
from torch.utils.data import DataLoader

from mhc_plugin.utils.logs import Screen


class StartHook(Hook):
    """Say what a run reads, trains and writes, and let its log reach the screen from there on.

    Args:
        screen (Screen): Between the log and the screen.

    Raises:
        ValueError: When a training starts whose data loader gives no batch.
    """

    # After those that refuse to start.
    priority = 'VERY_LOW'

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def before_run(self, runner: Runner) -> None:
        """Look at what has been built.

        Args:
            runner (Runner): The runner.
        """
        if isinstance(runner._train_loop, BaseLoop):
            _check_batches(runner.train_dataloader)
        self.screen.quiet = False
        lines = [f'{title + ":":<10}{text}' for title, text in _summary(runner) if text]
        runner.logger.info('\n'.join(['', *lines]))


def _check_batches(loader: DataLoader) -> None:
    if len(loader) > 0:
        return
    images, share = len(loader.dataset), len(loader.sampler)
    of_each = f', of which each process gets {share},' if share != images else ''
    raise ValueError(
        f'Nothing would be trained: `train_dataloader` gives no batch of {images} images{of_each} '
        f'with batch_size={loader.batch_size} and drop_last={loader.drop_last}. Lower '
        '`train_dataloader.batch_size`, or set `train_dataloader.drop_last=False`.'
    )


def _summary(runner: Runner) -> Iterator[tuple[str, str]]:
    loops = dict(training=runner._train_loop, validation=runner._val_loop, test=runner._test_loop)
    datasets = {
        name: loop.dataloader.dataset for name, loop in loops.items() if isinstance(loop, BaseLoop)
    }
    images = ', '.join(f'{len(dataset):,} for {name}' for name, dataset in datasets.items())
    kinds = sorted({type(dataset).__name__ for dataset in datasets.values()})
    yield 'Images', f'{images} ({", ".join(kinds)})'
    classes = getattr(next(iter(datasets.values())), 'metainfo', {}).get('classes') or ()
    names = textwrap.shorten(', '.join(map(str, classes)), 100, placeholder=' ...')
    yield 'Classes', f'{len(classes)}: {names}' if classes else ''
    yield 'Model', _model(runner)
    yield 'Schedule', _schedule(runner) if isinstance(runner._train_loop, BaseLoop) else ''
    loop = next(loop for loop in loops.values() if isinstance(loop, BaseLoop))
    cache = getattr(loop, 'cache', None)
    yield 'Features', f'stored once in {cache.cache_dir}' if cache else ''
    yield 'Files', f'{runner.work_dir} (all of the log: {runner._log_dir}/{runner.timestamp}.log)'


def _model(runner: Runner) -> str:
    model = getattr(runner.model, 'module', runner.model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    fixed = sum(p.numel() for p in model.parameters()) - trained
    parts = [
        type(part).__name__
        for name in ('backbone', 'neck', 'head')
        if (part := getattr(model, name, None)) is not None
    ]
    backbone = (runner.cfg.get('model') or {}).get('backbone') or {}
    variant = next(
        (backbone[key] for key in ('model_name', 'arch', 'depth') if key in backbone), ''
    )
    parts[:1] = [f'{parts[0]} {variant}'.strip()] if parts else [type(model).__name__]
    what = f'{trained:,} parameters are trained, {fixed:,} are not'
    if not isinstance(runner._train_loop, BaseLoop):
        what = f'{trained + fixed:,} parameters'
    return f'{", ".join(parts)}: {what}'


def _schedule(runner: Runner) -> str:
    loop, loader = runner.train_loop, runner.train_dataloader
    length = (
        f'{loop.max_epochs} epochs of {len(loader)} iterations'
        if isinstance(loop, EpochBasedTrainLoop)
        else f'{loop.max_iters} iterations'
    )
    count = get_world_size()
    processes = f' in each of {count} processes' if count > 1 else ''
    optimizer = getattr(runner.optim_wrapper, 'optimizer', None)
    steps = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.Optimizer):
        steps += f' with a learning rate of {optimizer.param_groups[0]["lr"]:g}'
    schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
    names = ''.join(f', {type(scheduler).__name__}' for scheduler in schedulers)
    device = next(runner.model.parameters()).device.type
    return f'{length} of {loader.batch_size} images{processes}; {steps}{names}; on {device}'
