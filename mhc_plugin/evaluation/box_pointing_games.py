"""Energy-based pointing game and pointing game for images with boxes."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS
from torch import Tensor

from mhc_plugin.functional.localisation import (
    box_coverage,
    energy_pointing_game,
    is_empty,
    pointing_game,
    resize_maps,
)

from .class_map_results import (
    check_size,
    input_size,
    log_per_class,
    mean_per_class,
    read_maps,
    summarise,
)
from .samples import in_test_loop


class _BoxPointingGame(BaseMetric):
    """What the two games share: for every class of an image its map and the mask of its boxes."""

    default_prefix = 'multi-label'
    name: ClassVar[str]
    quartiles: ClassVar[bool]
    play: ClassVar[Callable[[Tensor, Tensor], Tensor]]  # maps and masks (n, h, w) to shares (n,)

    def __init__(
        self,
        size: Sequence[int] | None = None,
        use_difficult: bool = False,
        per_class: bool = False,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        self.size = check_size(size)
        self.use_difficult = use_difficult
        self.per_class = per_class
        super().__init__(collect_device=collect_device, prefix=prefix)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the scores of one batch, not the maps.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): With ``pred_cam``, ``gt_bboxes`` (x1, y1, x2, y2 in
                0..1 of the image, ``(n, 4)``), ``gt_bbox_labels`` (int64 ``(n,)``), maybe
                ``gt_bbox_difficult`` (bool ``(n,)``) and, without ``size``, ``img_shape``.
        """
        for data_sample in data_samples:
            maps = read_maps(data_sample)
            boxes, labels = self._read_boxes(data_sample, len(maps))
            classes = labels.unique()
            own_maps = resize_maps(maps[classes], input_size(data_sample, self.size))
            masks = own_maps.new_zeros(own_maps.shape)
            for mask, index in zip(masks, classes):
                mask.copy_(box_coverage(boxes[labels == index], mask.shape))
            # A box that a crop has cut to nothing shows no object.
            seen = masks.flatten(1).sum(1) > 0
            own_maps, masks = own_maps[seen], masks[seen]
            self.results.append(
                dict(
                    num_classes=len(maps),
                    classes=classes[seen],
                    values=self.play(own_maps, masks),
                    chance=masks.mean((1, 2)),
                    empty=is_empty(own_maps),
                )
            )

    def _read_boxes(self, data_sample: dict, num_classes: int) -> tuple[Tensor, Tensor]:
        boxes, labels = (data_sample.get(key) for key in ('gt_bboxes', 'gt_bbox_labels'))
        if boxes is None or labels is None:
            raise ValueError(
                'Expected data samples with `gt_bboxes` and `gt_bbox_labels`, but got '
                'one without. Let the dataset load boxes and the pipeline pack them.'
            )
        boxes, labels = torch.as_tensor(boxes).cpu(), torch.as_tensor(labels).cpu().long()
        if len(boxes) != len(labels):
            raise ValueError(
                f'Expected `gt_bbox_labels` to hold one label per box, {len(boxes)}, '
                f'but got {len(labels)}.'
            )
        if ((labels < 0) | (labels >= num_classes)).any():
            raise ValueError(
                f'Expected `gt_bbox_labels` to hold numbers in 0..{num_classes - 1}, '
                f'but got {labels.tolist()}.'
            )
        difficult = data_sample.get('gt_bbox_difficult')
        if self.use_difficult or difficult is None:
            return boxes, labels
        used = ~torch.as_tensor(difficult).cpu().bool()
        return boxes[used], labels[used]

    def compute_metrics(self, results: list[dict]) -> dict:
        """Sum up over all samples.

        Args:
            results (list[dict]): What :meth:`process` kept of every sample.

        Returns:
            dict: Names without prefix, and floats or lists.
        """
        if len(results) == 0:
            raise ValueError('Expected at least one sample to evaluate, but got none.')
        classes, values, chance, empty = (
            torch.cat([r[key] for r in results]) for key in ('classes', 'values', 'chance', 'empty')
        )
        metrics = summarise(self.name, values, chance, empty, self.quartiles)
        metrics[f'{self.name}_ratio'] = (values / chance).mean().item()
        num_classes = results[0]['num_classes']
        lists = {
            f'{self.name}_classwise': mean_per_class(values, classes, num_classes),
            f'{self.name}_chance_classwise': mean_per_class(chance, classes, num_classes),
        }
        if self.per_class or in_test_loop():
            log_per_class(self.name, metrics | lists, self.dataset_meta)
        return metrics | lists if self.per_class else metrics


@METRICS.register_module()
class EnergyPointingGame(_BoxPointingGame):
    """Share of the mass of a class's map that lies in the boxes of the class.

    For every class of an image that has boxes, the map is resized bilinearly to the size of the
    input. An empty map scores 0 and is counted as empty; a uniform map scores the boxes' share of
    the area, which is chance. The plain figure favours large boxes, so its ratio to chance stands
    beside it.

    Results over all pairs of image and class, in percent except for ratio and numbers:

    - ``multi-label/energy_pg``, ``..._chance``, ``..._q25``, ``..._median``, ``..._q75``: mean,
      its level of chance, and quartiles;
    - ``..._ratio``: mean over maps of the share divided by that map's chance; 1 is chance;
    - ``..._num_maps``, ``..._num_empty``: how many maps, and how many of them are empty;
    - with ``per_class=True`` the lists ``..._classwise`` and ``..._chance_classwise``, NaN for a
      class without boxes.

    A table per class is logged with ``per_class=True``, and in a test loop always.

    Args:
        size (tuple[int, int], optional): Height and width to resize maps to. Defaults to None,
            which means the sample's ``img_shape``.
        use_difficult (bool): Whether difficult boxes count like others. If not, they are
            background. Defaults to False.
        per_class (bool): Whether to report lists per class. Defaults to False.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: If an argument does not fit; while evaluating, if a sample lacks ``pred_cam``,
            ``gt_bboxes`` or ``gt_bbox_labels``, or a map is not finite and non-negative.
    """

    name = 'energy_pg'
    quartiles = True
    play = staticmethod(energy_pointing_game)


@METRICS.register_module()
class PointingGame(_BoxPointingGame):
    """How often the highest pixel of a class's map lies in a box of the class.

    For every class of an image that has boxes, the map is resized bilinearly to the size of the
    input. Among several highest pixels the share in the boxes counts; so a uniform map scores the
    boxes' share of the area, which is chance. An empty map scores 0 and is counted as empty. The
    plain figure favours large boxes, so its ratio to chance stands beside it.

    Results over all pairs of image and class, in percent except for ratio and numbers:

    - ``multi-label/pointing_game`` and ``..._chance``: mean and its level of chance;
    - ``..._ratio``: mean over maps of the hit divided by that map's chance; 1 is chance;
    - ``..._num_maps``, ``..._num_empty``: how many maps, and how many of them are empty;
    - with ``per_class=True`` the lists ``..._classwise`` and ``..._chance_classwise``, NaN for a
      class without boxes.

    A table per class is logged with ``per_class=True``, and in a test loop always.

    Args:
        size (tuple[int, int], optional): Height and width to resize maps to. Defaults to None,
            which means the sample's ``img_shape``.
        use_difficult (bool): Whether difficult boxes count like others. If not, they are
            background. Defaults to False.
        per_class (bool): Whether to report lists per class. Defaults to False.
        collect_device (str): ``'cpu'`` or ``'gpu'``, where results of several processes are
            collected. Defaults to ``'cpu'``.
        prefix (str, optional): Put before the names of the results. Defaults to None, which
            means ``'multi-label'``.

    Raises:
        ValueError: If an argument does not fit; while evaluating, if a sample lacks ``pred_cam``,
            ``gt_bboxes`` or ``gt_bbox_labels``, or a map is not finite and non-negative.
    """

    name = 'pointing_game'
    quartiles = False
    play = staticmethod(pointing_game)
