"""ROAD: does the score fall when the places that a map points to are removed?"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.dataset import default_collate
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import Dataset

from mhc_plugin.class_maps import class_maps_of, left_as_found, unwrap_classifier
from mhc_plugin.utils.logs import progress
from mhc_plugin.utils.missing import needs_extra
from mhc_plugin.utils.seeding import sample_seed, seeded

PERCENTILES = (20, 40, 60, 80)


@dataclass(frozen=True)
class Road:
    """Result of ROAD, in points of a score of 0..100.

    Attributes:
        score (float): Half of what the score keeps when the least important pixels go rather than
            as many of the most important ones, averaged over shares of pixels and maps. Maps that
            say nothing have 0.
        chance (float): Its level of chance, 0.
        std_error (float): Standard error of the mean over maps.
        num_maps (int): Number of maps, one per image.
        num_empty (int): How many of them are empty; they count 0.
    """

    score: float
    chance: float
    std_error: float
    num_maps: int
    num_empty: int


def road(
    model: nn.Module,
    dataset: Dataset,
    method: str = 'inherent',
    num_images: int = 32,
    percentiles: tuple[int, ...] = PERCENTILES,
    seed: int = 0,
) -> Road:
    """Measure how faithful class maps are by removing what they point to.

    ``ROADCombined`` of ``pytorch_grad_cam`` (Rong et al., "A Consistent and Efficient Evaluation
    Strategy for Attribution Methods", ICML 2022) on the score, a sigmoid of the logit, of one class
    that is on the image. Pixels count by their rank in the map, ties in a drawn order: class maps
    are 0 over large areas, of which a threshold would take all or nothing.

    Args:
        model (nn.Module): A classifier. It is left as it was found.
        dataset (Dataset): Test images with targets, as a test pipeline packs them.
        method (str): Method of the maps. Defaults to ``'inherent'``.
        num_images (int): Number of images, drawn from those with a positive class. Defaults to 32.
        percentiles (tuple[int]): Shares of pixels that stay, in percent. Defaults to 20, 40, 60 and
            80.
        seed (int): Seed of the draw of images, classes, ties and noise; the same images and
            classes for all models. Defaults to 0.

    Returns:
        Road: The result.

    Raises:
        ImportError: If grad-cam is not installed.
        ValueError: If no image has a positive class.
    """
    ROADCombined, ClassifierOutputTarget = road_of_grad_cam()
    classifier = unwrap_classifier(model)
    metric = ROADCombined(percentiles=list(percentiles))
    scores, num_empty = [], 0
    with left_as_found(classifier):
        chosen = _choose(dataset, num_images, seed)
        for index, label in progress(chosen, 'ROAD'):
            batch = default_collate([dataset[index]])
            inputs = classifier.data_preprocessor(dict(inputs=batch['inputs']))['inputs']
            maps = class_maps_of(classifier, inputs, method, [label])
            if maps.max() == 0:
                num_empty += 1
                scores.append(0.0)
                continue
            with seeded(sample_seed(seed, index)):
                ranks = _ranks(F.interpolate(maps, size=inputs.shape[-2:], mode='bilinear')[0, 0])
                scores.append(
                    float(
                        metric(
                            inputs,
                            ranks[None].numpy(),
                            [ClassifierOutputTarget(label)],
                            _Scores(classifier, inputs),
                        )[0]
                    )
                )
    values = 100 * np.array(scores)
    return Road(
        score=float(values.mean()),
        chance=0.0,
        std_error=float(values.std(ddof=1) / len(values) ** 0.5)
        if len(values) > 1
        else float('nan'),
        num_maps=len(values),
        num_empty=num_empty,
    )


def road_of_grad_cam() -> tuple[type, type]:
    """Import the metric and its targets.

    Raises:
        ImportError: If grad-cam is not installed.
    """
    with needs_extra('cam', 'ROAD'):
        from pytorch_grad_cam.metrics.road import ROADCombined
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    return ROADCombined, ClassifierOutputTarget


def _choose(dataset: Dataset, num_images: int, seed: int) -> list[tuple[int, int]]:
    """Draw images and of each a class that is on it."""
    rng = np.random.RandomState(sample_seed(seed))
    chosen = []
    for index in rng.permutation(len(dataset)).tolist():
        if len(chosen) == num_images:
            break
        positive = _positive(dataset[index]['data_samples'])
        if len(positive) > 0:
            chosen.append((index, positive[rng.randint(len(positive))]))
    if not chosen:
        raise ValueError(
            'Expected images with a positive class to measure maps on, but the data set has none.'
        )
    return chosen


def _positive(sample: DataSample) -> list[int]:
    if 'gt_score' in sample:
        return (sample.gt_score == 1).nonzero()[:, 0].tolist()
    return sample.gt_label.tolist() if 'gt_label' in sample else []


class _Scores:
    """Scores of images; the library asks for those of the whole image again and again."""

    def __init__(self, model: nn.Module, whole: Tensor) -> None:
        self.model = model
        self.whole = whole
        self.of_whole = self.scores(whole)

    def __call__(self, images: Tensor) -> Tensor:
        return self.of_whole if images is self.whole else self.scores(images)

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        return self.model(images).sigmoid()


def _ranks(values: Tensor) -> Tensor:
    """Ranks of pixels (H, W), from 0 to 1, ties in an order drawn from torch's generator."""
    shuffle = torch.randperm(values.numel())
    order = shuffle[values.flatten().cpu()[shuffle].argsort(stable=True)]
    ranks = torch.empty(values.numel())
    ranks[order] = torch.linspace(0, 1, values.numel())
    return ranks.view(values.shape)
