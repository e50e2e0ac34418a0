"""Thresholds of a trained model, chosen on validation data and stored with the checkpoint."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from .config import load_config
from .test import test


def choose_thresholds(
    cfg: Config | str | os.PathLike, checkpoint: str | os.PathLike, **kwargs
) -> list[float]:
    """Choose for every class the threshold with the best F1 on validation data, and store them.

    :class:`MultiLabelInferencer` predicts by them, unless it is told otherwise. Scores of these
    labels on the same data are optimistic.

    Args:
        cfg (Config | str | PathLike): A config with validation data, which is left as it is, or
            what :func:`load_config` takes.
        checkpoint (str | PathLike): A file. The thresholds are written into it, as ``thresholds``
            of its ``dataset_meta``.
        **kwargs: See :func:`mhc_plugin.apis.test`: ``work_dir``, ``amp``, ``pin_memory``,
            ``launcher``.

    Returns:
        list[float]: One threshold per class, in 0..1; 0.5 for a class without positives.

    Raises:
        FileNotFoundError: If there is no such config, checkpoint or data.
        ValueError: If the config has no validation data.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    if not cfg.get('val_dataloader'):
        raise ValueError('Expected the config to have a `val_dataloader` to choose thresholds on.')
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no file {checkpoint} to store thresholds in.')
    if cfg.val_dataloader.dataset == (cfg.get('test_dataloader') or {}).get('dataset'):
        print_log(
            'Validation and test data of this config are the same: thresholds chosen on '
            'them flatter the test.',
            logger='current',
        )
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = [dict(type='mmpretrain.BestF1Thresholds')]
    cfg.test_cfg = dict(fp16=False)
    metrics = test(cfg, checkpoint, **kwargs)
    thresholds = metrics['multi-label/threshold_classwise']
    if is_main_process():
        store_thresholds(checkpoint, thresholds)
    barrier()
    return thresholds


def store_thresholds(checkpoint: str | os.PathLike, thresholds: Sequence[float]) -> None:
    """Write thresholds into a checkpoint, which is replaced at once or not at all.

    Args:
        checkpoint (str | PathLike): A file with ``meta``, as MMEngine writes it.
        thresholds (Sequence[float]): One per class.

    Raises:
        ValueError: If the checkpoint names its classes and there are not as many thresholds.
    """
    path = Path(checkpoint)
    content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='current')
    meta = content.setdefault('meta', {}).get('dataset_meta') or {}
    classes = meta.get('classes')
    if classes is not None and len(classes) != len(thresholds):
        raise ValueError(
            f'Expected {len(classes)} thresholds for the classes of {path}, but got '
            f'{len(thresholds)}.'
        )
    content['meta']['dataset_meta'] = dict(meta, thresholds=[float(t) for t in thresholds])
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        torch.save(content, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
