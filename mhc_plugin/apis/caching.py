"""``--cache-features``: loops over stored features in the place of a config's own."""

import argparse
from typing import Any

from mmengine.config import Config

from mhc_plugin.engine import DEFAULT_CACHE_DIR
from mhc_plugin.features.options import PRECISIONS, STORES
from mhc_plugin.features.store import STORAGES

CACHED_VAL_LOOPS = {
    None: 'FeatureCacheValLoop',
    'ValLoop': 'FeatureCacheValLoop',
    'FeatureCacheValLoop': 'FeatureCacheValLoop',
    'ClassMapValLoop': 'FeatureCacheClassMapValLoop',
    'FeatureCacheClassMapValLoop': 'FeatureCacheClassMapValLoop',
}
# What validation has no use for, or settles itself.
TRAINING_ONLY = ('views',)


OPTIONS = ('cache_dir', 'views', 'precision', 'storage', 'store', 'trust_mtime')


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--cache-features`` and its options."""
    group = parser.add_argument_group('feature cache')
    group.add_argument(
        '--cache-features',
        action='store_true',
        help='run the frozen backbone once per image and view, and train on stored features; the '
        'options below need it',
    )
    group.add_argument('--cache-dir', help=f'folder of features; {DEFAULT_CACHE_DIR} by default')
    group.add_argument(
        '--views', type=int, metavar='N', help='draws of the augmentation per image; 1 by default'
    )
    group.add_argument(
        '--precision',
        choices=PRECISIONS,
        help='what the backbone computes in: fp32 by default; bf16 is faster and changes scores',
    )
    group.add_argument('--storage', choices=list(STORAGES), help='fp16 by default')
    group.add_argument(
        '--store',
        choices=STORES,
        help='auto, the default, stores pooled vectors where the head needs no more; maps always '
        'stores maps',
    )
    # None, as for the others, says that the option was not given.
    group.add_argument(
        '--trust-mtime',
        action='store_true',
        default=None,
        help='take an image whose size and times are as they were for unchanged, without reading '
        'it',
    )


def cache_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """The options that were given; None without ``--cache-features``.

    Raises:
        ValueError: If options were given without it.
    """
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
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
        options (dict): Options of :class:`FeatureCacheTrainLoop`.

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
    train_cfg.update(type='mmpretrain.FeatureCacheTrainLoop', **options)
    val_cfg = cfg.get('val_cfg')
    # A validation loop of another kind keeps its images.
    if val_cfg is not None and _name(val_cfg) in CACHED_VAL_LOOPS:
        options = {name: value for name, value in options.items() if name not in TRAINING_ONLY}
        loop = CACHED_VAL_LOOPS[_name(val_cfg)]
        if 'ClassMap' in loop:
            options['store'] = 'maps'
        val_cfg.update(type=f'mmpretrain.{loop}', **options)


def _name(loop_cfg: dict) -> str | None:
    name = loop_cfg.get('type')
    return name.rpartition('.')[2] if isinstance(name, str) else getattr(name, '__name__', None)
