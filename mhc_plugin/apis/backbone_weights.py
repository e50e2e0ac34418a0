"""``--backbone-weights``: a local file, or random weights, in the place of published ones."""

import os
from pathlib import Path

from mmengine.config import Config

from mhc_plugin.models.backbone_weights import load_backbone

__all__ = ['load_backbone', 'replace_pretrained']


def replace_pretrained(cfg: Config, weights: str | os.PathLike) -> None:
    """Take the published weights of the backbone out of a config.

    Args:
        cfg (Config): Changed in place; ``cfg.backbone_weights`` records what was asked for.
        weights (str | PathLike): A checkpoint, or ``'none'`` for random weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config's model has no backbone.
    """
    weights = os.fspath(weights)
    if weights != 'none' and not Path(weights).expanduser().is_file():
        raise FileNotFoundError(
            f"There is no file {weights} to read the backbone's weights from. "
            'Give a checkpoint, or `none` for random weights.'
        )
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise ValueError(
            f'Expected a model with a backbone, but {cfg.model.type} has none whose '
            'weights could be replaced.'
        )
    backbone.pop('init_cfg', None)
    cfg.model.pop('pretrained', None)
    if 'pretrained' in backbone:
        # timm's models download when they are built.
        backbone.pretrained = False
    cfg.backbone_weights = weights
