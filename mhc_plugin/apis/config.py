"""Configs by path, by package or by name."""

import difflib
import inspect
import os
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mhc_plugin import compat

# What MMEngine's runner reads from a config besides the arguments of its constructor, and what the
# tools read. Anything else in a config is a variable of its author.
RUNNER_KEYS = frozenset(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'} | {
    'activation_checkpointing',
    'backbone_weights',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'total_batch_size',
    'tta_model',
    'tta_pipeline',
}


def load_config(config: str | os.PathLike, cfg_options: dict[str, Any] | None = None) -> Config:
    """Load a config.

    Args:
        config (str | PathLike): A file; or ``mhc_plugin::mhc/<name>.py``, or ``mmpretrain::...``;
            or the bare name of a config of this package.
        cfg_options (dict, optional): Settings to override, such as
            ``{'train_cfg.max_epochs': 10}``. Defaults to None.

    Returns:
        Config: The config, merged. A key or option that nothing reads, but that looks like one that
        something reads, is warned of.

    Raises:
        FileNotFoundError: If there is no such config; the message names the closest ones.
    """
    path = find_config(os.fspath(config))
    cfg = Config.fromfile(path)
    for key in cfg:
        close = _misspelt(key, RUNNER_KEYS, cutoff=0.93)
        if close and close not in cfg:
            warnings.warn(f'Nothing reads `{key}` of {path}; did you mean `{close}`?', stacklevel=2)
    for option in cfg_options or {}:
        key = option.split('.')[0]
        close = None if key in cfg else _misspelt(key, {*RUNNER_KEYS, *cfg}, cutoff=0.8)
        if close:
            warnings.warn(
                f'Nothing reads the option `{option}`; did you mean `{close}`?', stacklevel=2
            )
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    return cfg


def find_config(config: str) -> str:
    """Find the file of a config that is given as for :func:`load_config`."""
    package, is_packaged, name = config.partition('::')
    if package == compat.PACKAGE and is_packaged:
        return str(compat.config_file(name))
    if is_packaged:
        return Config._get_cfg_path(config, '')[0]
    if Path(config).is_file():
        return config
    root = compat.config_root() / 'configs'
    known = {path.stem: path for path in root.glob('mhc/*.py')}
    stem = Path(config).name.removesuffix('.py')
    if stem in known and Path(config).parent == Path():
        return str(known[stem])
    near = {path.stem: path for path in Path(config).parent.glob('*.py')}
    close = difflib.get_close_matches(stem, known | near, n=3, cutoff=0.75)
    hint = (
        f' Did you mean {" or ".join(str(near.get(name, name)) for name in close)}?'
        if close
        else f' The configs of this package are in {root}.'
    )
    raise FileNotFoundError(f'There is no config {config}.{hint}')


def _misspelt(key: str, known: set[str] | frozenset[str], cutoff: float) -> str | None:
    """The key that ``key`` was probably meant to be, if it is none of the known ones."""
    if key in known:
        return None
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=cutoff)), None)
