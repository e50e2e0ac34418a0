"""What the paper's experiments will take on this machine, told before they run."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from mmpretrain.registry import MODELS

from mhc_plugin.datasets.images import dataset_with_test_pipeline
from mhc_plugin.utils.logs import quiet

from .environment import replace_pretrained
from .reproduce import Cell


@dataclass(frozen=True)
class Cost:
    """What a cell takes on this machine, roughly.

    Attributes:
        images (dict[tuple, float]): Seconds that the features of training and of test images take;
            cells that agree in a key share them.
        stores (dict[tuple, int]): Bytes of these in float16, by key and shape.
        train_seconds (float): To train the head.
    """

    images: dict[tuple, float]
    stores: dict[tuple, int]
    train_seconds: float


def estimate(cell: Cell) -> Cost:
    """Estimate a cell by one batch of images through its backbone, and one step of its head."""
    cfg = cell.config()
    batch_size = cfg.train_dataloader.batch_size
    number = _sizes(cell.dataset, cell.smoke, cell.images, cell.common)
    shape, per_image, per_step = _speeds(cell.backbone, cell.head, cell.dataset)
    features = (cell.backbone, cell.dataset, cell.backbone_weights)
    # The training images are augmented anew with every seed.
    keys = {(*features, 'train', cell.seed): number[0], (*features, 'test'): number[1]}
    return Cost(
        images={key: n * per_image for key, n in keys.items()},
        stores={(*key, shape): 2 * n * math.prod(shape) for key, n in keys.items()},
        train_seconds=cfg.train_cfg.max_epochs * math.ceil(number[0] / batch_size) * per_step,
    )


@cache
def _sizes(dataset: str, smoke: bool, images: int | None, common: tuple) -> tuple[int, int]:
    """Images of training and test."""
    options = dict(smoke=smoke, images=images, common=common)
    cfg = Cell('efficientnet-lite0', 'multifc', dataset, **options).config()
    return tuple(len(dataset_with_test_pipeline(cfg, part)) for part in ('train', 'test'))


@cache
def _speeds(backbone: str, head: str, dataset: str) -> tuple[tuple[int, ...], float, float]:
    """Shape of a feature, seconds an image takes, seconds a step of the head takes."""
    cfg = Cell(backbone, head, dataset).config()
    replace_pretrained(cfg, 'none')
    with quiet():
        model = MODELS.build(dict(cfg.model, data_preprocessor=None)).eval()
    with torch.no_grad():
        seconds, (feature,) = _timed(lambda: model.extract_feat(torch.rand(8, 3, 224, 224)))
    if feature.dim() == 4 and not getattr(model.head, 'spatial', False):
        feature = feature.mean((2, 3))
    batch = feature.repeat(16, *[1] * (feature.dim() - 1))
    step, _ = _timed(lambda: model.head((batch,)).sum().backward())
    return tuple(feature.shape[1:]), seconds / len(feature), step


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    call()
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result
