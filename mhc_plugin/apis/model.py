"""Trained models, ready to predict."""

import copy
import os
import random
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmpretrain import get_model
from torch import nn

from mhc_plugin.datasets.images import test_dataset
from mhc_plugin.models.backbone_weights import check_weights, holds_backbone
from mhc_plugin.utils.logs import quiet
from mhc_plugin.utils.missing import explain_downloads
from mhc_plugin.utils.seeding import seeded

from .checkpoints import check_readable
from .config import load_config


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
        # As MMEngine's runner seeds, but for the streams of GPUs, which `seeded` would not give
        # back: the model is built on the CPU.
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
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


def classes_of(model: nn.Module) -> list[str]:
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


def _configured_classes(cfg: Config) -> list[str] | None:
    try:
        dataset = test_dataset(cfg)
    except ValueError:
        return None
    classes = dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    # A config may name a file of classes, or how to choose them; the checkpoint has their list.
    return None if classes is None or isinstance(classes, str | dict) else list(classes)
