"""Trained models, ready to predict."""

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import load_checkpoint, set_random_seed
from mmpretrain import get_model
from torch import nn

from mhc_plugin.cli.errors import explain_downloads
from mhc_plugin.models.backbone_weights import check_weights, holds_backbone
from mhc_plugin.utils.seeding import seeded

from .checkpoints import check_readable
from .config import load_config
from .images import test_dataset


def load_model(
    config: Config | str | os.PathLike,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> nn.Module:
    """Build a classifier and load its weights.

    Args:
        config (Config | str | PathLike): A config, which is left as it is, or what
            :func:`load_config` takes.
        checkpoint (str | PathLike, optional): A file or URL. Defaults to None, which means a model
            as training would start with it: the backbone's published weights and a head at its
            initialisation, drawn with the config's seed.
        device (str | torch.device, optional): Defaults to CUDA where there is any, else CPU.

    Returns:
        nn.Module: The classifier in evaluation mode, with the config as ``_config`` and what is
        known of its classes as ``_dataset_meta`` (``classes`` and, where they were chosen,
        ``thresholds``).

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ConnectionError: If weights cannot be downloaded.
        ValueError: If the checkpoint does not hold the weights of this model.
    """
    cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(config)
    if checkpoint is not None:
        checkpoint = os.fspath(checkpoint)
        if '://' not in checkpoint:
            check_readable(Path(checkpoint))
        if cfg.model.get('backbone', {}).get('pretrained') and holds_backbone(checkpoint):
            # timm's models download when they are built.
            cfg.model.backbone.pretrained = False
    seed = cfg.get('randomness', {}).get('seed') or 0
    with explain_downloads(cfg), seeded(seed), quiet():
        # As MMEngine's runner seeds; `seeded` gives the random states back afterwards.
        set_random_seed(seed)
        model = get_model(cfg, pretrained=False)
        meta = {}
        if checkpoint is None:
            model.init_weights()
        else:
            loaded = load_checkpoint(model, checkpoint, map_location='cpu', logger='current')
            check_weights(model, loaded, checkpoint)
            meta = dict(loaded.get('meta', {}).get('dataset_meta') or {})
    if not meta.get('classes'):
        classes = _configured_classes(cfg) or (model._dataset_meta or {}).get('classes')
        meta.update({} if classes is None else dict(classes=classes))
    model._dataset_meta = meta
    model.to(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    return model.eval()


def class_names(model: nn.Module) -> list[str]:
    """Names of a loaded model's classes; their indices where none are known.

    Raises:
        ValueError: If the model does not say how many classes it has.
    """
    names = (getattr(model, '_dataset_meta', None) or {}).get('classes')
    if names is not None:
        return [str(name) for name in names]
    count = getattr(model.head, 'num_classes', None)
    if count is None:
        raise ValueError(
            'Expected a model whose checkpoint or config names its classes, or whose '
            'head has `num_classes`.'
        )
    return [str(index) for index in range(count)]


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out how timm's stages and every parameter were built and initialised."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _configured_classes(cfg: Config) -> list[str] | None:
    try:
        dataset = test_dataset(cfg)
    except ValueError:
        return None
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    # A config may name a file of classes, which the checkpoint's own list stands for.
    return None if classes is None or isinstance(classes, str) else list(classes)
