"""Runs of several models with several seeds: trained, loaded and measured together."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch.utils.data import Dataset

from mhc_plugin.analysis.measures import evaluate_maps, metrics_for
from mhc_plugin.datasets import SplicedDataset
from mhc_plugin.datasets.images import dataset_with_test_pipeline

from .checkpoints import newest_readable
from .model import classes_of, load_model
from .train import train


@dataclass
class ModelRuns:
    """One config and its checkpoints, one per seed.

    Attributes:
        name (str): What the table calls it.
        cfg (Config): The config.
        checkpoints (list[Path]): The checkpoints.
    """

    name: str
    cfg: Config
    checkpoints: list[str | os.PathLike]


def train_runs(
    name: str,
    cfg: Config,
    seeds: Sequence[int],
    work_dir: str | os.PathLike,
    feature_cache: dict[str, Any] | None = None,
) -> ModelRuns:
    """Train a config with several seeds; a finished run is not repeated.

    Args:
        name (str): What the table calls it; its runs are in ``<work_dir>/<name>/seed<k>``.
        cfg (Config): The config.
        seeds (Sequence[int]): The seeds.
        work_dir (str | PathLike): Folder of all runs.
        feature_cache (dict, optional): See :func:`mhc_plugin.apis.train`. Defaults to None.

    Raises:
        ValueError: If a folder holds a run with other settings.
    """
    checkpoints = []
    for seed in seeds:
        # Resolved, as what is found in it is: a run in a relative folder is finished, too.
        folder = (Path(work_dir) / name / f'seed{seed}').resolve()
        _note_settings(folder, dict(cfg.to_dict(), feature_cache=feature_cache))
        done = folder / f'epoch_{cfg.train_cfg.max_epochs}.pth'
        if not done.is_file() or newest_readable(folder)[0] != done:
            train(cfg, work_dir=folder, seed=seed, feature_cache=feature_cache, no_validate=True)
        checkpoints.append(done)
    return ModelRuns(name, cfg, checkpoints)


def evaluate_runs(
    runs: Sequence[ModelRuns],
    *,
    split: str = 'test',
    method: str = 'inherent',
    with_swap: bool = True,
    road_images: int = 0,
    random_head: bool = True,
    seed: int = 0,
    batch_size: int = 32,
    num_workers: int = 0,
    device: str | None = None,
) -> dict[str, list[dict[str, float]]]:
    """Measure every checkpoint on the test data of the first config.

    Args:
        runs (Sequence[ModelRuns]): What to measure.
        split (str): ``'train'``, ``'val'`` or ``'test'``. Defaults to ``'test'``.
        method (str): Method of the maps. Defaults to ``'inherent'``.
        with_swap (bool): Swap tiles, where the data set is spliced. Defaults to True.
        road_images (int): Images for ROAD, which takes seconds for each; 0 leaves it out, the
            default.
        random_head (bool): Measure the maps of a random head beside the first checkpoint of
            every config. Defaults to True.
        seed (int): Seed of swaps, ROAD and random heads. Defaults to 0.
        batch_size (int): Defaults to 32.
        num_workers (int): Processes that load images. Defaults to 0.
        device (str, optional): Defaults to CUDA where there is any, else CPU.

    Returns:
        dict[str, list[dict[str, float]]]: For every name one dict of figures per checkpoint.

    Raises:
        ValueError: If models do not have the same classes, or a name comes twice.
    """
    dataset = dataset_with_test_pipeline(runs[0].cfg, split)
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f'Expected names that differ, but got {[run.name for run in runs]}.')
    models = {
        (run.name, i): load_model(run.cfg, checkpoint, device)
        for run in runs
        for i, checkpoint in enumerate(run.checkpoints)
    }
    _check_classes(models, dataset)
    evaluator = runs[0].cfg.get('test_evaluator') or []
    own = [evaluator] if isinstance(evaluator, dict) else list(evaluator)
    figures = evaluate_maps(
        models,
        dataset,
        [*own, *metrics_for(dataset)],
        method=method,
        random_heads=[key for key in models if key[1] == 0] if random_head else (),
        with_swap=with_swap and isinstance(dataset, SplicedDataset),
        road_images=road_images,
        seed=seed,
        batch_size=batch_size,
        num_workers=num_workers,
    )
    return {
        run.name: [_scalars(figures[run.name, i]) for i in range(len(run.checkpoints))]
        for run in runs
    }


def _note_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what a run is asked for; another run's figures must not pass for its own."""
    noted = folder / 'settings.json'
    settings = json.loads(json.dumps(settings, default=str))
    if noted.is_file():
        before = json.loads(noted.read_text(encoding='utf-8'))
        changed = sorted(
            key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key)
        )
        if changed:
            raise ValueError(
                f'{folder} holds a run with another setting of {", ".join(changed)}. '
                'Choose another work dir (--work-dir), or delete that run.'
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps(settings, indent=1), encoding='utf-8')


def _scalars(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def _check_classes(models: dict, dataset: Dataset) -> None:
    wanted = [str(name) for name in dataset.metainfo['classes']]
    for (name, _), model in models.items():
        if classes_of(model) != wanted:
            raise ValueError(
                f'Expected models of the classes of the data set, {wanted}, but '
                f'{name} has {classes_of(model)}.'
            )
