"""Measures of predictions and class maps of models on a data set, in one pass over it."""

import copy
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from torch import nn
from torch.utils.data import Dataset

from mhc_plugin.class_maps import left_as_found, posthoc_maps, unwrap_classifier
from mhc_plugin.functional.checks import check_no_nan
from mhc_plugin.functional.localisation import completeness
from mhc_plugin.models.heads.separate import redraw
from mhc_plugin.utils.logs import quiet
from mhc_plugin.utils.seeding import seeded

from .one_pass import Outputs, run_models
from .road import road
from .swap_test import swap_test


def evaluate_maps(
    models: Mapping[Hashable, nn.Module],
    dataset: Dataset,
    metrics: Sequence[dict] | None = None,
    *,
    method: str = 'inherent',
    random_heads: Collection[Hashable] = (),
    with_swap: bool = False,
    road_images: int = 0,
    seed: int = 0,
    batch_size: int = 32,
    num_workers: int = 0,
) -> dict[Hashable, dict[str, Any]]:
    """Evaluate predictions and class maps of models.

    One pass over the data feeds the metrics, the maps, the random heads and the logits before a
    swap; swapped composites are other images and need a pass of their own, as does ROAD.

    Args:
        models (Mapping[Hashable, nn.Module]): Classifiers in evaluation mode, by name. Those with
            the same backbone share its features.
        dataset (Dataset): Test images with targets, as a test pipeline packs them.
        metrics (Sequence[dict], optional): Configs of metrics. Defaults to
            :func:`metrics_for` the data set.
        method (str): Method of the maps. Defaults to ``'inherent'``.
        random_heads (Collection[Hashable]): Models beside which a copy with a random head
            (:func:`with_random_head`) is measured. Defaults to none.
        with_swap (bool): Whether to run the :func:`swap_test`, for which the data set has to be
            spliced. Keeps the logits of all images on the CPU. Defaults to False.
        road_images (int): Number of images for :func:`road`. Defaults to 0, which leaves it out.
        seed (int): Seed of random heads, swaps and ROAD. Defaults to 0.
        batch_size (int): Defaults to 32.
        num_workers (int): Processes that load images. Defaults to 0.

    Returns:
        dict[Hashable, dict[str, Any]]: For every model what its metrics gave; ``completeness``,
        in percent, of inherent maps that its head says itself; and on request
        ``random_head/<figure of the maps>``, ``swap``, ``swap_chance``, ``swap_expected``,
        ``swap_expected_chance``, ``road``, ``road_chance`` and ``road_std_error``.

    Raises:
        ValueError: If a model has no class maps, a score is NaN, a metric misses something, or
            there is nothing to swap.
    """
    of_maps = metrics_for(dataset)
    metrics = of_maps if metrics is None else metrics
    random = {name: with_random_head(models[name], seed) for name in random_heads}
    # The names of models are the caller's; those of random heads must not meet them.
    running = {(name, False): model for name, model in models.items()}
    running.update({(name, True): model for name, model in random.items()})
    evaluators = {key: _evaluator(of_maps if key[1] else metrics, dataset) for key in running}
    logits: dict[Hashable, list[torch.Tensor]] = {name: [] for name in models}
    means: dict[Hashable, list[torch.Tensor]] = {name: [] for name in models}
    own_maps = method == 'inherent'
    one_pass = run_models(
        running, dataset, batch_size, num_workers, 'Class maps', with_maps=own_maps
    )
    for samples, outputs in one_pass:
        for key, output in outputs.items():
            evaluators[key].process(_predictions(running[key], output, samples, method))
            if not key[1]:
                logits[key[0]].append(output.logits.cpu())
                if hasattr(unwrap_classifier(running[key]).head, 'class_bias') and own_maps:
                    means[key[0]].append(output.maps.mean((2, 3)).cpu())
    figures = {name: evaluators[name, False].evaluate(len(dataset)) for name in models}
    for name in random:
        found = evaluators[name, True].evaluate(len(dataset))
        figures[name].update({f'random_head/{k.rpartition("/")[2]}': v for k, v in found.items()})
    before = {name: torch.cat(parts) for name, parts in logits.items()}
    for name, parts in means.items():
        if parts:
            bias = unwrap_classifier(models[name]).head.class_bias.detach().cpu()
            share = completeness(before[name], torch.cat(parts), bias)
            figures[name]['completeness'] = 100 * share
    if with_swap:
        swaps = swap_test(models, dataset, seed, batch_size, num_workers, before=before)
        for name, swap in swaps.items():
            figures[name].update(
                swap=swap.score,
                swap_chance=swap.chance,
                swap_expected=swap.expected,
                swap_expected_chance=swap.expected_chance,
            )
    if road_images:
        for name, model in models.items():
            result = road(model, dataset, method, road_images, seed=seed)
            figures[name].update(
                road=result.score, road_chance=result.chance, road_std_error=result.std_error
            )
    return figures


def metrics_for(dataset: Dataset) -> list[dict]:
    """Choose the measures of class maps that the annotation of a data set allows.

    Cells of splices are for the grid pointing game, boxes for the energy pointing game and the
    pointing game; the correlation of maps needs neither.
    """
    sample = dataset[0]['data_samples']
    metrics = [dict(type='MapCorrelation')]
    if 'gt_cells' in sample:
        metrics.append(dict(type='GridPointingGame'))
    if 'gt_bboxes' in sample:
        metrics += [dict(type='EnergyPointingGame'), dict(type='PointingGame')]
    return metrics


def with_random_head(model: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a classifier and draw its head anew: a parameter-randomisation check.

    Maps that say something about what a head has learned must not survive this (Adebayo et al.,
    "Sanity Checks for Saliency Maps", NeurIPS 2018): those of the copy score near chance.

    Args:
        model (nn.Module): A classifier, which is left alone. The copy shares its backbone.
        seed (int): Seed of the draw, which is the same on any device. Defaults to 0.

    Returns:
        nn.Module: The copy, in evaluation mode.
    """
    model = unwrap_classifier(model)
    shared = {id(model.backbone): model.backbone}
    copied = copy.deepcopy(model, shared)
    device = next(copied.parameters()).device
    # Drawn on the CPU: generators of other devices are not seeded, and draw other numbers.
    copied.head.cpu()
    with seeded(seed), quiet():
        redraw(copied.head)
        copied.head._is_init = False
        copied.head.init_weights()
    copied.head.to(device)
    with left_as_found(model):
        copied.eval()
    return copied


def _evaluator(metrics: Sequence[dict], dataset: Dataset) -> Evaluator:
    evaluator = Evaluator([METRICS.build(copy.deepcopy(metric)) for metric in metrics])
    evaluator.dataset_meta = getattr(dataset, 'metainfo', None)
    return evaluator


def _predictions(
    model: nn.Module, output: Outputs, samples: Sequence[DataSample], method: str
) -> list[DataSample]:
    """What a loop with class maps would hand to metrics, from one run of the head."""
    model = unwrap_classifier(model)
    check_no_nan(output.logits)
    # A head writes its predictions into the samples that it is given. `predict` of MMPretrain's
    # heads is this and `forward`, which has run.
    predicted = model.head._get_predictions(output.logits, copy.deepcopy(samples))
    own = method == 'inherent'
    maps = output.maps.clamp(min=0) if own else posthoc_maps(model, output.inputs, method)
    for sample, sample_maps in zip(predicted, maps):
        sample.pred_cam = sample_maps
    return predicted
