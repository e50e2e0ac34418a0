"""The paper's experiments as cells: one training each, planned, run once, and read again."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mhc_plugin.analysis.paper import paper_tables
from mhc_plugin.datasets.images import dataset_with_test_pipeline

from .config import load_config
from .environment import replace_pretrained
from .train import train

#: What the paper calls our heads, and the one that it does not have.
PAPER_HEADS = {
    'baseline': 'Baseline',
    'convfc': 'ConvFC',
    'multifc': 'MultiFC',
    'multiconv': 'MultiConv',
}
HEADS = (*PAPER_HEADS, 'convfc-wide', 'multiatt')
PAPER_BACKBONES = ('seresnet50', 'vgg19', 'swin-tiny')
BACKBONES = ('efficientnet-lite0', *PAPER_BACKBONES)
#: Data set of each of the first four tables, and what is varied in the others.
DATASETS = {1: 'combined0', 2: 'combined1', 3: 'voc', 4: 'openimages'}
ABLATIONS = {
    5: ('learning_rate', 'optim_wrapper.optimizer.lr'),
    6: ('batch_size', 'train_dataloader.batch_size'),
    7: ('loss_weight', 'model.head.loss.loss_weight'),
}
# Epochs of each schedule; None means the config's, which are the paper's. The optimum is solved
# for, and only linear heads have one.
SCHEDULES = {'paper': None, 'short': 30, 'optimum': 1}
LINEAR_HEADS = ('baseline', 'multifc')
SMOKE = {'epochs': 2, 'train': 64, 'test': 32}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        backbone, head, dataset (str): Parts of the config's name.
        schedule (str): A key of :data:`SCHEDULES`.
        seed (int): The seed.
        options (tuple[tuple[str, float], ...]): Settings that differ from the config's.
        backbone_weights (str, optional): Of :func:`~mhc_plugin.apis.train`.
        smoke (bool): A few images and epochs, to see that everything runs.
    """

    backbone: str
    head: str
    dataset: str
    schedule: str = 'short'
    seed: int = 0
    options: tuple[tuple[str, float], ...] = ()
    backbone_weights: str | None = None
    smoke: bool = False

    @property
    def name(self) -> str:
        """Name of its record, without the folder; different cells have different names."""
        parts = [self.backbone, self.head, self.dataset, self.schedule]
        parts += [f'{key.rpartition(".")[2]}{value:g}' for key, value in self.options]
        if self.backbone_weights is not None:
            parts.append('random' if self.backbone_weights == 'none' else 'weights')
        return '_'.join([*parts, *['smoke'] * self.smoke, f'seed{self.seed}'])

    def config(self) -> Config:
        """The config that is trained: validated on the test data at the end."""
        cfg = load_config(f'{self.backbone}_{self.head}_{self.dataset}', dict(self.options))
        epochs = SMOKE['epochs'] if self.smoke else SCHEDULES[self.schedule]
        epochs = epochs or cfg.train_cfg.max_epochs
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=epochs)
        cfg.default_hooks.logger.interval = 1000
        if self.smoke:
            for part in ('train', 'val', 'test'):
                dataset = cfg[f'{part}_dataloader'].dataset
                key = 'length' if 'length' in dataset else 'max_images'
                dataset[key] = SMOKE['train' if part == 'train' else 'test']
        return cfg

    @property
    def settings(self) -> str:
        """Hash of the config: a record of other settings is not this cell's."""
        text = json.dumps(self.config().to_dict(), sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def is_finished(self, records: str | os.PathLike) -> bool:
        """Whether the folder has its record."""
        path = Path(records) / f'{self.name}.json'
        if not path.is_file():
            return False
        return (
            json.loads(path.read_text(encoding='utf-8'))['scores'].get('settings') == self.settings
        )


def plan(
    tables: Sequence[int],
    backbones: Sequence[str],
    heads: Sequence[str],
    seeds: Sequence[int],
    *,
    datasets: Sequence[str] | None = None,
    schedule: str = 'short',
    backbone_weights: str | None = None,
    smoke: bool = False,
) -> list[Cell]:
    """List what has to be trained for some of the paper's tables; each cell once.

    Args:
        tables (Sequence[int]): Numbers of tables, 1 to 7.
        backbones (Sequence[str]): Of :data:`BACKBONES`.
        heads (Sequence[str]): Of :data:`HEADS`. Tables 5 to 7 hold baseline and MultiFC only.
        seeds (Sequence[int]): The seeds.
        datasets (Sequence[str], optional): Data sets to keep. Defaults to None: all.
        schedule (str): ``'paper'``: as long as the paper trains; ``'short'``: 30 epochs;
            ``'optimum'``: linear heads solved for, whose only ablation is Table 7's. Defaults to
            ``'short'``.
        backbone_weights (str, optional): Of :func:`~mhc_plugin.apis.train`. Defaults to None.
        smoke (bool): A few images and epochs. Defaults to False.

    Raises:
        ValueError: If a table is none of the seven.
    """
    cells = {}

    def add(head: str, dataset: str, options: tuple[tuple[str, float], ...] = ()) -> None:
        if schedule == 'optimum' and (
            head not in LINEAR_HEADS or any('loss_weight' not in key for key, _ in options)
        ):
            return
        if head in heads and dataset in (datasets or DATASETS.values()):
            for backbone in backbones:
                for seed in seeds:
                    cell = Cell(
                        backbone, head, dataset, schedule, seed, options, backbone_weights, smoke
                    )
                    cells[cell] = None

    for table in tables:
        if table in DATASETS:
            for head in heads:
                add(head, DATASETS[table])
        elif table in ABLATIONS:
            for row in paper_tables()[f'table{table}']:
                add(head_of(row), row['dataset'], options_of(table, row))
        else:
            raise ValueError(f'Expected tables of 1 to 7, but got {table}.')
    # Cells that share features follow one another.
    return sorted(cells, key=lambda cell: (cell.backbone, cell.dataset, cell.head))


def head_of(row: dict) -> str:
    """Our name of the head in a row of the paper."""
    return next(ours for ours, papers in PAPER_HEADS.items() if papers == row['model'])


def options_of(table: int, row: dict) -> tuple[tuple[str, float], ...]:
    """What a row of Tables 5 to 7 changes of the config; nothing where it is the config's own."""
    column, key = ABLATIONS[table]
    own = dict(learning_rate=0.01, batch_size=128, loss_weight=1.0)[column]
    value = int(row[column]) if column == 'batch_size' else row[column]
    return () if value == own else ((key, value),)


@dataclass(frozen=True)
class Cost:
    """What a cell takes on this machine, roughly.

    Attributes:
        features (tuple): What is stored of an image: backbone, data set and shape. Cells that
            agree in it share a store.
        store_seconds (float): To compute the features of all images.
        store_bytes (int): Of these in float16.
        train_seconds (float): To train the head.
    """

    features: tuple
    store_seconds: float
    store_bytes: int
    train_seconds: float


def estimate(cell: Cell) -> Cost:
    """Estimate a cell by one batch of images through its backbone, and one step of its head."""
    cfg = cell.config()
    images, batches = _sizes(cell.dataset, cell.smoke)
    shape, per_image, per_step = _speeds(cell.backbone, cell.head, cell.dataset)
    return Cost(
        features=(cell.backbone, cell.dataset, cell.backbone_weights, shape),
        store_seconds=images * per_image,
        store_bytes=2 * images * math.prod(shape),
        train_seconds=cfg.train_cfg.max_epochs * batches * per_step,
    )


@cache
def _sizes(dataset: str, smoke: bool) -> tuple[int, int]:
    """Images of training and test, and batches of an epoch."""
    cfg = Cell('efficientnet-lite0', 'multifc', dataset, smoke=smoke).config()
    train_images, test_images = (
        len(dataset_with_test_pipeline(cfg, part)) for part in ('train', 'test')
    )
    return train_images + test_images, math.ceil(train_images / cfg.train_dataloader.batch_size)


@cache
def _speeds(backbone: str, head: str, dataset: str) -> tuple[tuple[int, ...], float, float]:
    """Shape of a feature, seconds an image takes, seconds a step of the head takes."""
    cfg = Cell(backbone, head, dataset).config()
    replace_pretrained(cfg, 'none')
    model = MODELS.build(dict(cfg.model, data_preprocessor=None)).eval()
    with torch.no_grad():
        seconds, (feature,) = _timed(lambda: model.extract_feat(torch.rand(8, 3, 224, 224)))
    pooled = not getattr(model.head, 'needs_maps', False)
    if pooled and feature.dim() == 4:
        feature = feature.mean((2, 3))
    batch = feature.repeat(16, *[1] * (feature.dim() - 1))
    step, _ = _timed(lambda: model.head((batch,)).sum().backward())
    return tuple(feature.shape[1:]), seconds / len(feature), step


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    call()
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def run_cell(
    cell: Cell, work_dir: str | os.PathLike, feature_cache: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train a cell on stored features and score it on those of the test images.

    Args:
        cell (Cell): What to train.
        work_dir (str | PathLike): Folder of logs and checkpoints of all cells.
        feature_cache (dict, optional): See :func:`~mhc_plugin.apis.train`. Defaults to None: its
            defaults.

    Returns:
        dict: ``settings``, ``metrics``, the mean ``loss`` of every epoch, ``prevalence`` of every
        class in the test data, ``images`` there, and ``dataset``, the test data.
    """
    cfg = cell.config()
    result = train(
        cfg,
        work_dir=Path(work_dir) / cell.name,
        seed=cell.seed,
        backbone_weights=cell.backbone_weights,
        feature_cache=feature_cache or {},
        optimum='cv' if cell.schedule == 'optimum' else None,
        small_checkpoints=True,
    )
    runner = result.runner
    losses = runner.message_hub.log_scalars.get('train/loss')
    per_epoch = [] if losses is None else np.array_split(losses.data[0], runner.max_epochs)
    # Validation may have exchanged its own for stored features.
    dataset = dataset_with_test_pipeline(cfg, 'val')
    targets = np.array([_target(dataset, i) for i in range(len(dataset))])
    return dict(
        settings=cell.settings,
        metrics={k: float(v) for k, v in result.metrics.items() if isinstance(v, int | float)},
        loss=[float(part.mean()) for part in per_epoch if len(part)],
        prevalence=[float((t == 1).sum() / max((t >= 0).sum(), 1)) for t in targets.T],
        images=len(dataset),
        dataset=dataset,
    )


def run_cells(
    cells: Iterable[Cell],
    records: str | os.PathLike,
    run: Callable[[Cell], None],
    explain: Callable[[Exception], str],
    progress: Callable[[Cell, str], None],
) -> None:
    """Run what has no record yet; what fails leaves its error, and the rest goes on.

    Args:
        cells (Iterable[Cell]): What to run.
        records (str | PathLike): Folder of the records, ``<name>.json`` or ``<name>.error.json``.
        run (Callable): Runs a cell and writes its record.
        explain (Callable): Says in one sentence what an error means.
        progress (Callable): Told of every cell what became of it: ``'done'``, ``'there'`` or the
            error.
    """
    folder = Path(records)
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        failed = folder / f'{cell.name}.error.json'
        if cell.is_finished(folder):
            progress(cell, 'there')
            continue
        try:
            run(cell)
        except Exception as error:
            sentence = explain(error)
            failed.write_text(json.dumps(dict(asdict(cell), error=sentence), indent=1) + '\n')
            progress(cell, sentence)
            continue
        failed.unlink(missing_ok=True)
        progress(cell, 'done')


def _target(dataset: Any, i: int) -> np.ndarray:
    info = dataset.get_data_info(i)
    if 'gt_score' in info:
        return np.asarray(info['gt_score'])
    target = np.zeros(len(dataset.metainfo['classes']))
    target[list(info['gt_label'])] = 1
    return target
