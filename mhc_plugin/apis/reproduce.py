"""The paper's experiments as cells: one training each, planned, run once, and read again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mhc_plugin.analysis.paper import paper_tables
from mhc_plugin.datasets.images import dataset_with_test_pipeline
from mhc_plugin.utils.logs import quiet
from mhc_plugin.utils.seeding import seeded

from .config import load_config
from .environment import replace_pretrained
from .sweep import is_free, name_of, train_together
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
REDUCTION = 'model.head.loss.head_reduction'
SMOKE = {'epochs': 2, 'images': 64}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        backbone, head, dataset (str): Parts of the config's name.
        schedule (str): A key of :data:`SCHEDULES`.
        seed (int): The seed.
        options (tuple[tuple[str, float | str], ...]): Settings that differ from the config's.
        backbone_weights (str, optional): Of :func:`~mhc_plugin.apis.train`.
        smoke (bool): A few images and epochs, to see that everything runs.
        images (int, optional): Training images at most, and half as many of the test images; None
            means all.
        common (tuple[tuple[str, Any], ...]): Settings that differ from the config's in all cells.
    """

    backbone: str
    head: str
    dataset: str
    schedule: str = 'short'
    seed: int = 0
    options: tuple[tuple[str, float | str], ...] = ()
    backbone_weights: str | None = None
    smoke: bool = False
    images: int | None = None
    common: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Name of its record, without the folder; different cells have different names."""
        parts = [self.backbone, self.head, self.dataset, self.schedule]
        parts += [name_of(dict(self.options + self.common))] * bool(self.options + self.common)
        if self.backbone_weights is not None:
            random = self.backbone_weights == 'none'
            parts.append('random' if random else f'weights-{_hash_file(self.backbone_weights)}')
        parts += [f'images{self.images}'] * (self.images is not None) + ['smoke'] * self.smoke
        return '_'.join([*parts, f'seed{self.seed}'])

    def config(self) -> Config:
        """The config that is trained: validated on the test data at the end."""
        name, options = f'{self.backbone}_{self.head}_{self.dataset}', self.options + self.common
        with quiet():
            cfg = load_config(name, dict(options))
        epochs = SMOKE['epochs'] if self.smoke else SCHEDULES[self.schedule]
        epochs = epochs or cfg.train_cfg.max_epochs
        cfg.train_cfg.update(max_epochs=epochs, val_interval=epochs)
        cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=epochs)
        cfg.default_hooks.logger.interval = 1000
        images = SMOKE['images'] if self.smoke else self.images
        if images is not None:
            for part in ('train', 'val', 'test'):
                dataset = cfg[f'{part}_dataloader'].dataset
                key = 'length' if 'length' in dataset else 'max_images'
                dataset[key] = min(dataset[key], images if part == 'train' else images // 2)
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


@cache
def _hash_file(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]


def plan(
    tables: Sequence[int],
    backbones: Sequence[str],
    heads: Sequence[str],
    seeds: Sequence[int],
    *,
    datasets: Sequence[str] | None = None,
    schedule: str = 'short',
    reductions: Sequence[str] = ('sum',),
    backbone_weights: str | None = None,
    smoke: bool = False,
    images: int | None = None,
    common: dict[str, Any] = {},
) -> list[Cell]:
    """List what has to be trained for some of the paper's tables; each cell once.

    Args:
        tables (Sequence[int]): Numbers of tables, 1 to 7.
        backbones (Sequence[str]): Of :data:`BACKBONES`.
        heads (Sequence[str]): Of :data:`HEADS`. Tables 5 to 7 hold baseline and MultiFC only.
        seeds (Sequence[int]): The seeds.
        datasets (Sequence[str], optional): Data sets to keep. Defaults to None: all.
        schedule (str): ``'paper'``: as long as the paper trains; ``'short'``: 30 epochs;
            ``'optimum'``: linear heads solved for, without ablations. Defaults to ``'short'``.
        reductions (Sequence[str]): Of the loss over heads, ``'sum'`` and ``'mean'``, in Tables 1 to
            4. Defaults to ``'sum'`` alone.
        backbone_weights (str, optional): Of :func:`~mhc_plugin.apis.train`. Defaults to None.
        smoke (bool): A few images and epochs. Defaults to False.
        images (int, optional): Of :class:`Cell`. Defaults to None.
        common (dict[str, Any]): Options of all configs. Defaults to none.

    Raises:
        ValueError: If a table is none of the seven.
    """
    cells = {}

    def add(head: str, dataset: str, options: tuple[tuple[str, float | str], ...] = ()) -> None:
        # It has neither a learning rate nor batches, and lambda is a factor on the weight decay.
        if schedule == 'optimum' and (head not in LINEAR_HEADS or options):
            return
        if head in heads and dataset in (datasets or DATASETS.values()):
            for backbone in backbones:
                for seed in seeds:
                    cell = Cell(backbone, head, dataset, schedule, seed, options)
                    cells[replace(cell, **everywhere)] = None

    settings = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in common.items())
    everywhere = dict(
        backbone_weights=backbone_weights, smoke=smoke, images=images, common=settings
    )
    for table in tables:
        if table in DATASETS:
            for head in heads:
                for reduction in reductions:
                    add(head, DATASETS[table], reduction_option(reduction))
        elif table in ABLATIONS:
            for row in paper_tables()[f'table{table}']:
                add(head_of(row), row['dataset'], options_of(table, row))
        else:
            raise ValueError(f'Expected tables of 1 to 7, but got {table}.')

    def order(cell: Cell) -> tuple:
        # Cells that share features follow one another, those of maps first, which can be pooled;
        # other batch sizes last.
        late = any(not is_free(key) for key, _ in cell.options)
        linear = cell.head in LINEAR_HEADS
        return late, cell.backbone, cell.dataset, cell.seed, linear, heads.index(cell.head)

    return sorted(cells, key=order)


def reduction_option(reduction: str) -> tuple[tuple[str, str], ...]:
    """The option of a reduction of the loss over heads; nothing for the config's own."""
    return () if reduction == 'sum' else ((REDUCTION, reduction),)


def head_of(row: dict) -> str:
    """Our name of the head in a row of the paper."""
    return next(ours for ours, papers in PAPER_HEADS.items() if papers == row['model'])


def options_of(table: int, row: dict) -> tuple[tuple[str, float], ...]:
    """What a row of Tables 5 to 7 changes of the config; nothing where it is the config's own."""
    column, key = ABLATIONS[table]
    own = dict(learning_rate=0.01, batch_size=128, loss_weight=1.0)[column]
    value = int(row[column]) if column == 'batch_size' else row[column]
    return () if value == own else ((key, value),)


def passes(cells: Iterable[Cell]) -> list[list[Cell]]:
    """Cells that are trained together on one pass over features, by pass."""
    groups = {}
    for cell in cells:
        fixed = tuple(option for option in cell.options if not is_free(option[0]))
        together = cell.schedule != 'optimum'
        groups.setdefault(replace(cell, options=fixed) if together else cell, []).append(cell)
    return list(groups.values())


def run_pass(
    cells: Sequence[Cell], work_dir: str | os.PathLike, feature_cache: dict[str, Any] | None = None
) -> dict[Cell, dict[str, Any]]:
    """Train cells together on stored features and score them on those of the test images.

    Args:
        cells (Sequence[Cell]): One of :func:`passes`.
        work_dir (str | PathLike): Folder of logs and checkpoints of all cells.
        feature_cache (dict, optional): See :func:`~mhc_plugin.apis.train`. Defaults to None: its
            defaults.

    Returns:
        dict[Cell, dict]: Of each ``error``, or None; ``checkpoint``; and ``scores``: ``settings``,
        ``metrics``, the mean ``loss`` of every epoch, ``prevalence`` of every class in the test
        data and ``images`` there.
    """
    first, work_dir = cells[0], Path(work_dir)
    weights = first.backbone_weights
    if weights == 'none':
        weights = random_backbone(first.backbone, first.seed, work_dir)
    options = dict(seed=first.seed, backbone_weights=weights, small_checkpoints=True)
    configs, feature_cache = {cell: cell.config() for cell in cells}, feature_cache or {}
    folder = work_dir / first.name
    if first.schedule == 'optimum':
        result = train(
            configs[first], work_dir=folder, feature_cache=feature_cache, optimum='cv', **options
        )
        found = {first: dict(error=None, checkpoint=result.checkpoint)}
        scores = {first: (result.metrics, [])}
    else:
        heads = train_together(
            {cell.name: cfg for cell, cfg in configs.items()},
            work_dir=folder,
            feature_cache=feature_cache,
            **options,
        )
        by_cell = {cell: heads[cell.name] for cell in cells}
        found = {c: dict(error=own.error, checkpoint=own.checkpoint) for c, own in by_cell.items()}
        scores = {cell: (own.metrics, own.losses) for cell, own in by_cell.items()}
    prevalence = _prevalence(first.dataset, first.smoke, first.images, first.common)
    for cell, (metrics, losses) in scores.items():
        found[cell]['scores'] = dict(
            settings=cell.settings,
            metrics={k: float(v) for k, v in metrics.items() if isinstance(v, int | float)},
            loss=losses,
            **prevalence,
        )
    return found


@cache
def _prevalence(dataset: str, smoke: bool, images: int | None, common: tuple) -> dict[str, Any]:
    """``images`` of the test data, and ``prevalence``: the share of them that have each class."""
    options = dict(smoke=smoke, images=images, common=common)
    cfg = Cell('efficientnet-lite0', 'multifc', dataset, **options).config()
    data = dataset_with_test_pipeline(cfg, 'val')
    targets = np.array([_target(data, i) for i in range(len(data))])
    shares = [float((t == 1).sum() / max((t >= 0).sum(), 1)) for t in targets.T]
    return dict(images=len(data), prevalence=shares)


def random_backbone(backbone: str, seed: int, folder: Path) -> Path:
    """A checkpoint of a backbone's random weights, which are drawn once for all its heads."""
    path = folder / f'{backbone}_random{seed}.pth'
    if not path.is_file():
        cfg = Cell(backbone, 'multifc', 'combined0').config()
        replace_pretrained(cfg, 'none')
        with seeded(seed), quiet():
            module = MODELS.build(cfg.model.backbone)
            module.init_weights()
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(dict(state_dict=module.state_dict()), path.with_suffix('.part'))
        path.with_suffix('.part').replace(path)
    return path


def run_passes(
    cells: Iterable[Cell],
    records: str | os.PathLike,
    run: Callable[[list[Cell]], dict[Cell, str | None]],
    explain: Callable[[Exception], str],
    progress: Callable[[Cell, str], None],
) -> None:
    """Run what has no record yet; what fails leaves its error, and the rest goes on.

    Args:
        cells (Iterable[Cell]): What to run.
        records (str | PathLike): Folder of the records, ``<name>.json`` or ``<name>.error.json``.
        run (Callable): Runs cells together, writes the records of those that end well, and gives
            the errors of the others.
        explain (Callable): Says in one sentence what an error means.
        progress (Callable): Told of every cell what became of it: ``'done'`` or the error.
    """
    folder = Path(records)
    folder.mkdir(parents=True, exist_ok=True)
    for together in passes(cell for cell in cells if not cell.is_finished(folder)):
        try:
            errors = run(together)
        except Exception as error:
            errors = dict.fromkeys(together, explain(error))
        for cell in together:
            sentence, failed = errors.get(cell), folder / f'{cell.name}.error.json'
            if sentence is None:
                failed.unlink(missing_ok=True)
            else:
                failed.write_text(json.dumps(dict(asdict(cell), error=sentence), indent=1) + '\n')
            progress(cell, sentence or 'done')


def _target(dataset: Any, i: int) -> np.ndarray:
    info = dataset.get_data_info(i)
    if 'gt_score' in info:
        return np.asarray(info['gt_score'])
    target = np.zeros(len(dataset.metainfo['classes']))
    target[list(info['gt_label'])] = 1
    return target
