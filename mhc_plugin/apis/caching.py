"""``--cache-features``: loops over stored features in the place of a config's own."""

import argparse
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from mmengine.config import Config

from mhc_plugin.features.options import CacheOptions

CACHED_VAL_LOOPS = {
    None: 'FeatureCacheValLoop',
    'ValLoop': 'FeatureCacheValLoop',
    'FeatureCacheValLoop': 'FeatureCacheValLoop',
    'ClassMapValLoop': 'FeatureCacheClassMapValLoop',
    'FeatureCacheClassMapValLoop': 'FeatureCacheClassMapValLoop',
}


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache-features`` and an option for each of :class:`CacheOptions`."""
    group = parser.add_argument_group('feature cache')
    group.add_argument(
        '--cache-features',
        action='store_true',
        help='run the frozen backbone once per image and view, and train on stored features; the '
        'options below need it',
    )
    for option in fields(CacheOptions):
        name, default = f'--{option.name.replace("_", "-")}', option.default
        # None says that the option was not given.
        if default is False:
            group.add_argument(
                name, action='store_true', default=None, help=option.metadata['help']
            )
        else:
            group.add_argument(
                name,
                type=type(default),
                choices=option.metadata['choices'],
                help=f'{option.metadata["help"]}; {default} by default',
            )


def cache_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """The options that were given; None without ``--cache-features``.

    Raises:
        ValueError: If options were given without it.
    """
    values = {option.name: getattr(args, option.name) for option in fields(CacheOptions)}
    given = {name: value for name, value in values.items() if value is not None}
    if args.cache_features:
        return given
    if given:
        raise ValueError(
            f'Expected --cache-features beside --{next(iter(given)).replace("_", "-")}'
            ', which is an option of the feature cache.'
        )
    return None


def set_feature_cache(cfg: Config, options: dict[str, Any]) -> None:
    """Train and validate on stored features.

    Args:
        cfg (Config): Changed in place.
        options (dict): Arguments of :class:`CacheOptions`.

    Raises:
        ValueError: If the config does not train by epochs, or trains with a loop of its own.
    """
    train_cfg = cfg.train_cfg
    loop = _name(train_cfg)
    if not train_cfg.pop('by_epoch', True) or loop not in (
        None,
        'EpochBasedTrainLoop',
        'FeatureCacheTrainLoop',
    ):
        raise ValueError(
            'The feature cache takes the place of `EpochBasedTrainLoop`, but the '
            f'config trains with `{loop or "IterBasedTrainLoop"}`.'
        )
    cache = dict(train_cfg.get('cache') or {}) | options
    train_cfg.update(type='mmpretrain.FeatureCacheTrainLoop', cache=cache)
    val_cfg = cfg.get('val_cfg')
    # A validation loop of another kind keeps its images.
    if val_cfg is not None and _name(val_cfg) in CACHED_VAL_LOOPS:
        loop = CACHED_VAL_LOOPS[_name(val_cfg)]
        if 'ClassMap' in loop:
            options = dict(options, store='maps')
        cache = dict(val_cfg.get('cache') or {}) | options
        val_cfg.update(type=f'mmpretrain.{loop}', cache=cache)


def set_optimum(cfg: Config, weight_decay: float | Sequence[float] | str) -> None:
    """Solve for the optimum of linear heads on stored features.

    Args:
        cfg (Config): Changed in place.
        weight_decay (float | Sequence[float] | str): See :class:`OptimumTrainLoop`.
    """
    set_feature_cache(cfg, {})
    cfg.train_cfg = dict(
        type='mmpretrain.OptimumTrainLoop', weight_decay=weight_decay, cache=cfg.train_cfg.cache
    )
    # There is one step and no learning rate.
    cfg.param_scheduler = None


def _name(loop_cfg: dict) -> str | None:
    name = loop_cfg.get('type')
    return name.rpartition('.')[2] if isinstance(name, str) else getattr(name, '__name__', None)
