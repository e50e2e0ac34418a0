"""Measures of class maps over a data set, for one model or for many at once."""

import copy
from collections.abc import Mapping, Sequence

from mmengine.evaluator import Evaluator
from mmpretrain.registry import METRICS
from torch import nn
from torch.utils.data import Dataset

from mhc_plugin.apis.model import quiet
from mhc_plugin.class_maps import inherent_maps, left_as_found, posthoc_maps, unwrap_classifier
from mhc_plugin.utils.seeding import seeded

from .shared_backbone import run_models


def evaluate_maps(
    models: Mapping[str, nn.Module],
    dataset: Dataset,
    metrics: Sequence[dict] | None = None,
    *,
    method: str = 'inherent',
    batch_size: int = 32,
    num_workers: int = 0,
) -> dict[str, dict[str, float]]:
    """Evaluate predictions and class maps of models in one pass over the data.

    Args:
        models (Mapping[str, nn.Module]): Classifiers in evaluation mode, by name. Those with the
            same backbone share its features.
        dataset (Dataset): Test images with targets, as a test pipeline packs them.
        metrics (Sequence[dict], optional): Configs of metrics. Defaults to
            :func:`metrics_for` the data set.
        method (str): Method of the maps. Defaults to ``'inherent'``.
        batch_size (int): Defaults to 32.
        num_workers (int): Processes that load images. Defaults to 0.

    Returns:
        dict[str, dict[str, float]]: For every model what its metrics gave.

    Raises:
        ValueError: If a model has no class maps, or a metric misses something.
    """
    metrics = metrics_for(dataset) if metrics is None else metrics
    evaluators = {}
    for name in models:
        evaluators[name] = Evaluator([METRICS.build(copy.deepcopy(metric)) for metric in metrics])
        evaluators[name].dataset_meta = getattr(dataset, 'metainfo', None)
    for samples, outputs in run_models(models, dataset, batch_size, num_workers, 'Class maps'):
        for name, output in outputs.items():
            model = unwrap_classifier(models[name])
            maps = (
                inherent_maps(model, output.feats)
                if method == 'inherent'
                else posthoc_maps(model, output.inputs, method)
            )
            # A head writes its predictions into the samples that it is given.
            predicted = model.head.predict(output.necked, copy.deepcopy(samples))
            for sample, sample_maps in zip(predicted, maps):
                sample.pred_cam = sample_maps
            evaluators[name].process(predicted)
    return {name: evaluator.evaluate(len(dataset)) for name, evaluator in evaluators.items()}


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
        seed (int): Seed of the draw. Defaults to 0.

    Returns:
        nn.Module: The copy, in evaluation mode.
    """
    model = unwrap_classifier(model)
    shared = {id(model.backbone): model.backbone}
    copied = copy.deepcopy(model, shared)
    with seeded(seed), quiet():
        for module in copied.head.modules():
            if hasattr(module, 'reset_parameters'):
                module.reset_parameters()
        copied.head._is_init = False
        copied.head.init_weights()
    with left_as_found(model):
        copied.eval()
    return copied
