"""Testing, and choosing thresholds, as ``tools/test.py`` does it."""

# ruff: noqa: PT028 (`test` is not a test of pytest)
import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmengine
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import barrier, is_main_process
from mmengine.evaluator import DumpResults
from mmengine.logging import MMLogger
from mmengine.runner import CheckpointLoader
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mhc_plugin.datasets.images import flip_views, inner_dataset
from mhc_plugin.functional.checks import check_no_nan
from mhc_plugin.models.backbone_weights import holds_backbone
from mhc_plugin.utils.logs import Screen, table_text
from mhc_plugin.utils.missing import explain_downloads

from .checkpoints import check_readable
from .config import load_config
from .environment import add_hooks, build_runner, set_loader_defaults, set_work_dir, start_processes
from .start import StartHook

_CLASSWISE = '_classwise'


def test(
    cfg: Config | str | os.PathLike,
    checkpoint: str | os.PathLike,
    *,
    work_dir: str | os.PathLike | None = None,
    out: str | os.PathLike | None = None,
    out_item: str | None = None,
    amp: bool = False,
    show_dir: str | os.PathLike | None = None,
    show: bool = False,
    interval: int = 1,
    wait_time: float = 2,
    pin_memory: bool = True,
    tta: bool = False,
    maps: str | None = None,
    launcher: str = 'none',
    verbose: bool = False,
) -> dict[str, Any]:
    """Test a checkpoint and log a table of its scores.

    Args:
        cfg (Config | str | PathLike): A config, which is left as it is, or what
            :func:`load_config` takes.
        checkpoint (str | PathLike): A file or URL.
        work_dir (str | PathLike, optional): Folder of logs. Defaults to None, which means the
            config's, or ``work_dirs/<name of the config>``.
        out (str | PathLike, optional): File to write predictions (``.pkl``) or metrics
            (``.json``, ``.yaml``, ``.pkl``) to. Defaults to None.
        out_item (str, optional): What to write, ``'pred'`` or ``'metrics'``. Defaults to None,
            which means predictions.
        amp (bool): Mixed precision: float16 on CUDA, bfloat16 on CPU. Defaults to False.
        show_dir (str | PathLike, optional): Folder for images with predictions drawn on them.
            Defaults to None.
        show (bool): Show them in a window. Defaults to False.
        interval (int): Draw one of so many images. Defaults to 1.
        wait_time (float): Seconds to show an image. Defaults to 2.
        pin_memory (bool): Let data loaders pin memory where there is a GPU. Defaults to True.
        tta (bool): Average over test-time augmentation: the config's ``tta_pipeline`` and
            ``tta_model``, or else the image and its mirror image. Defaults to False.
        maps (str, optional): Put class maps on the predictions, for metrics: ``'inherent'``, or a
            method of ``pytorch_grad_cam``. Defaults to None.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Defaults to
            ``'none'``.
        verbose (bool): Show MMEngine's account of environment, config and hooks on the screen,
            too; it is in the log file always. Defaults to False.

    Returns:
        dict[str, Any]: The metrics.

    Raises:
        FileNotFoundError: If a config, checkpoint or data set does not exist.
        ConnectionError: If the checkpoint cannot be downloaded.
        ValueError: If settings do not fit together, or the checkpoint is not of this model and
            these classes.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    _check(checkpoint, out, out_item, tta, show or show_dir is not None, maps is not None)
    set_work_dir(cfg, work_dir)
    cfg.load_from, cfg.resume = os.fspath(checkpoint), False
    if cfg.model.get('backbone', {}).get('pretrained') and holds_backbone(checkpoint):
        # timm's models download when they are built.
        cfg.model.backbone.pretrained = False
    if amp:
        cfg.test_cfg.fp16 = True
    if show or show_dir is not None:
        cfg.merge_from_dict(
            {
                'default_hooks.visualization': dict(
                    type='VisualizationHook',
                    enable=True,
                    show=show,
                    wait_time=wait_time,
                    interval=interval,
                    out_dir=None if show_dir is None else os.fspath(show_dir),
                )
            }
        )
    if tta:
        _set_tta(cfg)
    if maps is not None:
        is_cached = 'FeatureCache' in cfg.test_cfg.get('type', '')
        cfg.test_cfg.update(
            type=f'mmpretrain.{"FeatureCache" if is_cached else ""}ClassMapTestLoop', method=maps
        )
    set_loader_defaults(cfg, ('test_dataloader',), pin_memory, persistent_workers=None)
    add_hooks(cfg, matching_checkpoint=dict(type='mmpretrain.MatchingCheckpointHook'))
    start_processes(cfg, launcher)

    screen = Screen(verbose)
    with screen.in_use(), explain_downloads(cfg):
        runner = build_runner(cfg)
        runner.register_hook(StartHook(screen))
        if out is not None and out_item != 'metrics':
            runner.test_evaluator.metrics.append(_DumpScores(out_file_path=os.fspath(out)))
        metrics = runner.test()
    if out is not None:
        if out_item == 'metrics' and is_main_process():
            mmengine.dump(metrics, os.fspath(out))
        runner.logger.info(f'Wrote {out_item or "pred"} to {out}.')
    metainfo = getattr(runner.test_dataloader.dataset, 'metainfo', {})
    runner.logger.info(f'{checkpoint}:\n{metrics_table(metrics, metainfo.get("classes"))}')
    return metrics


def choose_thresholds(
    cfg: Config | str | os.PathLike, checkpoint: str | os.PathLike, **kwargs
) -> list[float]:
    """Choose for every class the threshold with the best F1 on validation data, and store them.

    :class:`MultiLabelInferencer` predicts by them, unless it is told otherwise. Scores of these
    labels on the same data are optimistic.

    Args:
        cfg (Config | str | PathLike): A config with validation data, which is left as it is, or
            what :func:`load_config` takes.
        checkpoint (str | PathLike): A file. The thresholds are written into it, as ``thresholds``
            of its ``dataset_meta``.
        **kwargs: See :func:`mhc_plugin.apis.test`: ``work_dir``, ``amp``, ``pin_memory``,
            ``launcher``.

    Returns:
        list[float]: One threshold per class, in 0..1; 0.5 for a class without positives.

    Raises:
        FileNotFoundError: If there is no such config, checkpoint or data.
        ValueError: If the config has no validation data.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    if not cfg.get('val_dataloader'):
        raise ValueError('Expected the config to have a `val_dataloader` to choose thresholds on.')
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'There is no file {checkpoint} to store thresholds in.')
    on_test_data = _same_images(cfg.val_dataloader, cfg.get('test_dataloader'))
    cfg.test_dataloader = cfg.val_dataloader
    cfg.test_evaluator = [dict(type='mmpretrain.BestF1Thresholds')]
    cfg.test_cfg = dict(fp16=False)
    metrics = test(cfg, checkpoint, **kwargs)
    if on_test_data:
        # After the run, whose first lines would bury it.
        MMLogger.get_current_instance().warning(
            'THESE THRESHOLDS WERE CHOSEN ON THE TEST IMAGES: `val_dataloader` and '
            '`test_dataloader` of this config read the same ones, so scores of labels on the test '
            'data are flattered. Give the config validation data of its own.'
        )
    thresholds = metrics['multi-label/threshold_classwise']
    if is_main_process():
        store_thresholds(checkpoint, thresholds)
    barrier()
    return thresholds


def _same_images(first: dict, second: dict | None) -> bool:
    """Whether two loaders read the same images, however they prepare, wrap and batch them."""
    ways = {'pipeline', 'test_mode', 'lazy_init', 'serialize_data', 'max_refetch'}

    def what(loader: dict | None) -> dict:
        dataset = inner_dataset((loader or {}).get('dataset')) or {}
        return {key: value for key, value in dataset.items() if key not in ways}

    return what(first) == what(second) != {}


def store_thresholds(checkpoint: str | os.PathLike, thresholds: Sequence[float]) -> None:
    """Write thresholds into a checkpoint, which is replaced at once or not at all.

    Args:
        checkpoint (str | PathLike): A file with ``meta``, as MMEngine writes it.
        thresholds (Sequence[float]): One per class.

    Raises:
        ValueError: If the checkpoint names its classes and there are not as many thresholds.
    """
    path = Path(checkpoint)
    content = CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='current')
    meta = content.setdefault('meta', {}).get('dataset_meta') or {}
    classes = meta.get('classes')
    if classes is not None and len(classes) != len(thresholds):
        raise ValueError(
            f'Expected {len(classes)} thresholds for the classes of {path}, but got '
            f'{len(thresholds)}.'
        )
    content['meta']['dataset_meta'] = dict(meta, thresholds=[float(t) for t in thresholds])
    unfinished = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        torch.save(content, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def metrics_table(metrics: dict[str, Any], classes: Sequence[str] | None = None) -> str:
    """Write metrics as a table of scores and, where lists are among them, one of classes.

    Args:
        metrics (dict[str, Any]): What an evaluator gave. A list whose name ends in ``_classwise``
            is a column of the second table.
        classes (Sequence[str], optional): Names of the classes. Defaults to None, which means
            their indices.

    Returns:
        str: The tables, without colours.
    """
    scores = Table('metric', box=SIMPLE_HEAD)
    scores.add_column('value', justify='right')
    columns = {}
    for name, value in metrics.items():
        if name.endswith(_CLASSWISE):
            columns[name.removesuffix(_CLASSWISE)] = value
        elif isinstance(value, int | float):
            scores.add_row(name, _number(value))
    return table_text(scores) + (table_text(_class_table(columns, classes)) if columns else '')


def _class_table(columns: dict[str, Sequence], classes: Sequence[str] | None) -> Table:
    length = max(map(len, columns.values()))
    names = classes if classes is not None and len(classes) == length else range(length)
    # The prefix is the same everywhere, and there is little room.
    table = Table('class', box=SIMPLE_HEAD)
    for column in columns:
        table.add_column(column.rpartition('/')[2], justify='right')
    for index, name in enumerate(names):
        cells = [values[index] if index < len(values) else '' for values in columns.values()]
        table.add_row(str(name), *map(_number, cells))
    return table


def _number(value: Any) -> str:
    return f'{value:.2f}' if isinstance(value, float) else str(value)


class _DumpScores(DumpResults):
    """Dump predictions, but no scores that are NaN: not every metric looks at them."""

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        scores = [sample['pred_score'] for sample in predictions if 'pred_score' in sample]
        if scores:
            check_no_nan(torch.stack(scores), len(self.results))
        super().process(data_batch, predictions)


def _check(
    checkpoint: str | os.PathLike,
    out: str | os.PathLike | None,
    out_item: str | None,
    tta: bool,
    draws: bool,
    with_maps: bool,
) -> None:
    """Raise where the arguments do not fit, before anything is built."""
    if out_item not in ('pred', 'metrics', None):
        raise ValueError(
            "Expected argument `out_item` to be one of ('pred', 'metrics', None), but "
            f'got {out_item!r}.'
        )
    if out is None and out_item is not None:
        raise ValueError(f'Expected argument `out`, the file to write {out_item!r} to.')
    suffixes = ('.pkl', '.pickle')
    if out_item == 'metrics':
        suffixes += ('.json', '.yaml', '.yml')
    if out is not None and Path(out).suffix not in suffixes:
        raise ValueError(
            f'Expected argument `out` to end in one of {suffixes}, but got {os.fspath(out)!r}.'
        )
    if tta and draws:
        raise ValueError(
            'Expected one of `tta` and `show`/`show_dir`: a sample has several images '
            'under test-time augmentation.'
        )
    if tta and with_maps:
        raise ValueError(
            'Expected one of `tta` and `maps`: the views of a sample have maps of their own.'
        )
    if '://' not in os.fspath(checkpoint):
        check_readable(Path(checkpoint))


def _set_tta(cfg: Config) -> None:
    """Put the test-time augmentation of the config, or a flip, in the place of its pipeline."""
    if 'tta_model' not in cfg:
        cfg.tta_model = dict(type='mmpretrain.MultiLabelScoreTTA')
    dataset = cfg.test_dataloader.dataset
    if 'tta_pipeline' not in cfg:
        cfg.tta_pipeline = flip_views(dataset.pipeline)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline
    if 'visualization' in cfg.get('default_hooks', {}):
        cfg.default_hooks.visualization.enable = False
