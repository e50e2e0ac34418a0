"""Accuracy and class maps of several models, each trained with several seeds, in one table."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch.utils.data import Dataset

from mhc_plugin.analysis.map_evaluation import evaluate_maps, metrics_for, with_random_head
from mhc_plugin.analysis.road import road
from mhc_plugin.analysis.swap_test import swap_test
from mhc_plugin.datasets import SplicedDataset

from .checkpoints import newest_readable
from .model import class_names, load_model
from .panels import dataset_with_test_pipeline
from .train import train

# What the table shows, where it was measured: key, title, digits, key of its level of chance.
COLUMNS = (
    ('multi-label/precision_top4_micro', 'top-4\nprecision', 1, None),
    ('multi-label/mAP', 'mAP', 1, None),
    ('multi-label/grid_pg', 'GridPG', 1, 'multi-label/grid_pg_chance'),
    ('multi-label/grid_pg_sure', 'GridPG\n(sure)', 1, 'multi-label/grid_pg_sure_chance'),
    ('multi-label/energy_pg', 'EnergyPG', 1, 'multi-label/energy_pg_chance'),
    ('multi-label/energy_pg_ratio', 'EnergyPG\n/ area', 2, None),
    ('multi-label/pointing_game', 'Pointing\ngame', 1, 'multi-label/pointing_game_chance'),
    ('multi-label/pointing_game_ratio', 'Pointing\n/ area', 2, None),
    ('swap', 'Swap', 1, 'swap_chance'),
    ('swap_expected', 'Swap\nas expected', 1, 'swap_expected_chance'),
    ('road', 'ROAD', 1, 'road_chance'),
    ('multi-label/map_correlation', 'map\ncorrelation', 2, 'multi-label/map_correlation_chance'),
    ('random_head/grid_pg', 'GridPG of a\nrandom head', 1, 'multi-label/grid_pg_chance'),
    ('random_head/energy_pg', 'EnergyPG of a\nrandom head', 1, 'multi-label/energy_pg_chance'),
)


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
        folder = Path(work_dir) / name / f'seed{seed}'
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
    options = dict(batch_size=batch_size, num_workers=num_workers)
    evaluator = runs[0].cfg.get('test_evaluator') or []
    own = [evaluator] if isinstance(evaluator, dict) else list(evaluator)
    figures = evaluate_maps(
        models, dataset, [*own, *metrics_for(dataset)], method=method, **options
    )
    if random_head:
        firsts = {
            key: with_random_head(model, seed) for key, model in models.items() if key[1] == 0
        }
        for key, found in evaluate_maps(firsts, dataset, method=method, **options).items():
            figures[key].update(
                {f'random_head/{name.rpartition("/")[2]}': v for name, v in found.items()}
            )
    if with_swap and isinstance(dataset, SplicedDataset):
        for key, swap in swap_test(models, dataset, seed, **options).items():
            figures[key].update(
                swap=swap.score,
                swap_chance=swap.chance,
                swap_expected=swap.expected,
                swap_expected_chance=swap.expected_chance,
            )
    if road_images:
        for key, model in models.items():
            result = road(model, dataset, method, road_images, seed=seed)
            figures[key].update(
                road=result.score, road_chance=result.chance, road_std_error=result.std_error
            )
    return {
        run.name: [_scalars(figures[run.name, i]) for i in range(len(run.checkpoints))]
        for run in runs
    }


def results_table(results: dict[str, list[dict[str, float]]]) -> Table:
    """Make a table: a model a row, mean and standard deviation over its seeds, chance below.

    Args:
        results (dict): What :func:`evaluate_runs` gave.
    """
    every = [figures for group in results.values() for figures in group]
    columns = [column for column in COLUMNS if any(column[0] in figures for figures in every)]
    table = Table('model', 'n', box=SIMPLE_HEAD, show_footer=True)
    table.columns[0].footer = 'chance'
    for _, title, digits, chance in columns:
        # It is not a number where a model has no image to measure on.
        level = next(
            (figures[chance] for figures in every if not math.isnan(figures.get(chance, math.nan))),
            None,
        )
        table.add_column(title, '' if level is None else f'{level:.{digits}f}', justify='right')
    for name, group in results.items():
        table.add_row(
            name,
            str(len(group)),
            *(
                _mean_and_std([figures[key] for figures in group if key in figures], digits)
                for key, _, digits, _ in columns
            ),
        )
    return table


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


def _mean_and_std(values: list[float], digits: int) -> str:
    if not values:
        return ''
    mean = f'{round(np.mean(values), digits) + 0.0:.{digits}f}'  # adding 0 makes -0 a 0
    return mean if len(values) == 1 else f'{mean} ± {np.std(values, ddof=1):.{digits}f}'


def _scalars(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if isinstance(value, int | float)}


def _check_classes(models: dict, dataset: Dataset) -> None:
    wanted = [str(name) for name in dataset.metainfo['classes']]
    for (name, _), model in models.items():
        if class_names(model) != wanted:
            raise ValueError(
                f'Expected models of the classes of the data set, {wanted}, but '
                f'{name} has {class_names(model)}.'
            )
