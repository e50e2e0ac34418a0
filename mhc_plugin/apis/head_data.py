"""What heads' files say of data: what they were trained on, and how they score."""

import copy
import hashlib
import json
import logging
from collections.abc import Sequence

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mhc_plugin.features.description import describe_dataset
from mhc_plugin.features.store import FileHashes
from mhc_plugin.features.versions import UndescribableError
from mhc_plugin.functional.average_precision import average_precision
from mhc_plugin.models import BaseMultiHeadClsHead


def hash_training_data(cfg: Config) -> dict[str, str]:
    """For every class, SHA-256 of the training images and of its labels; empty if unknown."""
    try:
        dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
        images = describe_dataset(dataset, FileHashes())
    except (FileNotFoundError, UndescribableError):
        return {}
    classes = dataset.metainfo['classes']
    scores = torch.stack(
        [_score(dataset.get_data_info(i), len(classes)) for i in range(len(dataset))]
    )
    text = json.dumps(images, sort_keys=True)
    return {
        str(name): hashlib.sha256(text.encode() + scores[:, c].numpy().tobytes()).hexdigest()
        for c, name in enumerate(classes)
    }


def _score(sample: dict | DataSample, num_classes: int) -> Tensor:
    score = sample.get('gt_score')
    if score is not None:
        return torch.as_tensor(score, dtype=torch.float32)
    return torch.zeros(num_classes).index_fill(0, torch.as_tensor(sample.get('gt_label')), 1.0)


@torch.no_grad()
def score_heads(
    cfg: Config, model: nn.Module, views: Sequence[nn.Module], names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """For every class its average precision on the test data, in percent; none without data.

    Every head is run by itself, so that its score does not depend on which others there are.

    Args:
        cfg (Config): Says where the data are.
        model (nn.Module): In evaluation mode.
        views (Sequence[nn.Module]): Its heads, as ordinary modules.
        names (Sequence[str]): Their classes.
    """
    if cfg.get('test_dataloader') is None:
        return {}
    try:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            loader = Runner.build_dataloader(copy.deepcopy(cfg.test_dataloader))
    except FileNotFoundError as error:
        print_log(f'The heads get no scores: {error}', 'current', logging.WARNING)
        return {}
    classes = [str(name) for name in loader.dataset.metainfo['classes']]
    columns = [classes.index(name) for name in names]
    logits, targets = [], []
    for batch in loader:
        data = model.data_preprocessor(batch)
        feats = model.extract_feat(data['inputs'])
        own = feats if isinstance(model.head, BaseMultiHeadClsHead) else feats[-1]
        logits.append(torch.cat([view.eval()(own) for view in views], 1))
        scores = [_score(sample, len(classes)) for sample in data['data_samples']]
        targets.append(torch.stack(scores)[:, columns])
    target = torch.cat(targets)
    hard = torch.where(target < 0, -1, (target >= 0.5).to(torch.int8))
    precision = 100 * average_precision(torch.cat(logits), hard)
    return {
        name: {} if value.isnan() else dict(AP=round(value.item(), 2))
        for name, value in zip(names, precision)
    }
