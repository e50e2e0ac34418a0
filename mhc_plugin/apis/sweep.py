"""Many settings of one config, trained side by side."""

import copy
import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mhc_plugin.engine.loops.sweep_loop import SweptHead

from .caching import set_feature_cache
from .config import load_config
from .train import train

# What settings may differ in that share a pass over the data: none of it is read before the head
# has its first weights and its batch.
FREE = ('optim_wrapper', 'param_scheduler', 'model.head.loss')


@dataclass(frozen=True)
class SweepRun:
    """One setting with one seed, and what became of it.

    Attributes:
        options (dict[str, Any]): The setting: what differs from the config.
        seed (int, optional): The seed; None is the config's.
        metrics (dict[str, float]): What validation gave at the end; empty with an error.
        losses (list[float]): The mean loss of every epoch.
        checkpoint (Path, optional): The checkpoint; beside it, ``config.json`` holds its config.
        error (str, optional): Why its training ended early.
    """

    options: dict[str, Any]
    seed: int | None
    metrics: dict[str, float]
    losses: list[float]
    checkpoint: Path | None
    error: str | None


def sweep(
    config: Config | str | os.PathLike,
    vary: dict[str, Sequence[Any]],
    seeds: Sequence[int | None] = (None,),
    *,
    work_dir: str | os.PathLike,
    backbone_weights: str | os.PathLike | None = None,
    feature_cache: dict[str, Any] | None = None,
    small_checkpoints: bool = False,
    verbose: bool = False,
) -> list[SweepRun]:
    """Train every combination of some settings with every seed.

    Combinations that differ in optimizer, schedule and loss alone are trained on one pass over the
    stored features; what differs in anything else, such as the batch size, and every seed, which
    draws another order, gets a pass of its own. Each ends where a run of its own ends.

    Args:
        config (Config | str | PathLike): A config, or what :func:`load_config` takes.
        vary (dict[str, Sequence]): Of every option the values to try, such as
            ``{'optim_wrapper.optimizer.lr': [0.1, 0.01]}``.
        seeds (Sequence[int | None]): The seeds. Defaults to the config's alone.
        work_dir (str | PathLike): Folder of logs and checkpoints:
            ``<work_dir>/<pass>/<setting>/epoch_<n>.pth``.
        backbone_weights, feature_cache, small_checkpoints, verbose: See
            :func:`~mhc_plugin.apis.train`; features are stored always.

    Returns:
        list[SweepRun]: Seed after seed, the combinations in the order of their values.
    """
    base = config if isinstance(config, Config) else load_config(config)
    passes: dict[tuple, dict[str, tuple[dict, Config]]] = {}
    for seed in seeds:
        for values in itertools.product(*vary.values()):
            options = dict(zip(vary, values))
            cfg = copy.deepcopy(base)
            cfg.merge_from_dict(copy.deepcopy(options))
            free = {key: value for key, value in options.items() if is_free(key)}
            apart = {key: value for key, value in options.items() if key not in free}
            if seed is not None:
                apart['seed'] = seed
            own = passes.setdefault((seed, name_of(apart) or 'all'), {})
            name = name_of(free) or 'own'
            # Values of which a name keeps too little to tell them apart.
            own[f'{name}-{len(own)}' if name in own else name] = (options, cfg)
    runs = []
    for (seed, name), settings in passes.items():
        heads = train_together(
            {setting: cfg for setting, (_, cfg) in settings.items()},
            work_dir=Path(work_dir) / name,
            seed=seed,
            backbone_weights=backbone_weights,
            feature_cache=feature_cache,
            small_checkpoints=small_checkpoints,
            verbose=verbose,
        )
        for setting, (options, _) in settings.items():
            own = heads[setting]
            runs.append(SweepRun(options, seed, own.metrics, own.losses, own.checkpoint, own.error))
    return runs


def is_free(option: str) -> bool:
    """Whether settings that differ in this option can share a pass over the data."""
    return any(option == key or option.startswith(f'{key}.') for key in FREE)


def shared_part(cfg: Config) -> str:
    """What configs that are trained together agree in, as text."""
    shared = copy.deepcopy(cfg.to_dict())
    for key in ('optim_wrapper', 'param_scheduler'):
        shared.pop(key, None)
    shared.get('model', {}).get('head', {}).pop('loss', None)
    return json.dumps(shared, sort_keys=True, default=str)


def name_of(options: dict[str, Any]) -> str:
    """A file's name for options: the last part of every key, and its value.

    What no file system takes, or is too long, is told by a hash at the end.
    """
    text = '_'.join(f'{key.rpartition(".")[2]}{value}' for key, value in options.items())
    name = ''.join(c if c.isalnum() or c in '.-_' else '-' for c in text)[:100]
    return name if name == text else f'{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}'


def train_together(
    cfgs: dict[str, Config],
    *,
    work_dir: str | os.PathLike,
    seed: int | None = None,
    backbone_weights: str | os.PathLike | None = None,
    feature_cache: dict[str, Any] | None = None,
    small_checkpoints: bool = False,
    verbose: bool = False,
) -> dict[str, SweptHead]:
    """Train configs that differ in optimizer, schedule and loss alone on one pass over features.

    Args:
        cfgs (dict[str, Config]): The configs, by the names of their folders.
        work_dir (str | PathLike): Folder of the log; ``<work_dir>/<name>`` gets ``config.json`` and
            the checkpoint.
        seed, backbone_weights, feature_cache, small_checkpoints, verbose: See
            :func:`~mhc_plugin.apis.train`.

    Returns:
        dict[str, SweptHead]: What became of each.

    Raises:
        ValueError: If they differ in anything else, or as :func:`~mhc_plugin.apis.train`.
        FloatingPointError: If the loss of every one becomes infinite or no number.
    """
    first = next(iter(cfgs.values()))
    for name, cfg in cfgs.items():
        if shared_part(cfg) != shared_part(first):
            raise ValueError(
                f'Expected configs that differ in {", ".join(FREE)} alone, but {name} and '
                f'{next(iter(cfgs))} differ in more.'
            )
        folder = Path(work_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        cfg.dump(folder / 'config.json')
    cfg = copy.deepcopy(first)
    # Names of runs tell logs apart, and begin with the config's.
    stem = cfg.get('experiment_name') or (Path(cfg.filename).stem if cfg.filename else 'sweep')
    cfg.experiment_name = f'{stem}_{Path(work_dir).name}'
    set_feature_cache(cfg, feature_cache or {})
    cfg.train_cfg = dict(
        type='mmpretrain.SweepTrainLoop',
        max_epochs=cfg.train_cfg.max_epochs,
        cache=cfg.train_cfg.cache,
        settings={
            name: dict(
                optim_wrapper=own.optim_wrapper,
                param_scheduler=own.get('param_scheduler'),
                loss=own.model.head.get('loss'),
            )
            for name, own in cfgs.items()
        },
    )
    # The loop saves every head once.
    cfg.default_hooks = dict(cfg.get('default_hooks') or {}, checkpoint=None)
    result = train(
        cfg,
        work_dir=work_dir,
        seed=seed,
        backbone_weights=backbone_weights,
        small_checkpoints=small_checkpoints,
        verbose=verbose,
    )
    return result.runner.train_loop.heads
