"""Training, as ``tools/train.py`` does it."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import OPTIMIZERS

from mhc_plugin.models import FrozenBackboneClassifier
from mhc_plugin.models.backbone_weights import load_backbone
from mhc_plugin.utils.logs import Screen
from mhc_plugin.utils.missing import explain_downloads, explain_full_disk

from .caching import set_feature_cache, set_optimum
from .checkpoints import RESUMABLE, check_readable, newest_readable
from .class_choice import say_what_couples, select_classes
from .config import load_config
from .environment import (
    add_hooks,
    build_runner,
    replace_pretrained,
    set_loader_defaults,
    set_work_dir,
    split_total_batch,
    start_processes,
    written_folders,
)
from .start import StartHook


@dataclass(frozen=True)
class TrainResult:
    """What a training leaves.

    Attributes:
        checkpoint (Path, optional): The last checkpoint.
        metrics (dict[str, float]): What the last validation gave.
        best_checkpoint (Path, optional): The best checkpoint, where the config saves one.
        runner (Runner): The runner, with the trained model.
    """

    checkpoint: Path | None
    metrics: dict[str, float]
    best_checkpoint: Path | None
    runner: Runner


def train(
    cfg: Config | str | os.PathLike,
    *,
    work_dir: str | os.PathLike | None = None,
    resume: bool | str | os.PathLike = False,
    amp: bool = False,
    no_validate: bool = False,
    auto_scale_lr: bool = False,
    pin_memory: bool = True,
    persistent_workers: bool = True,
    launcher: str = 'none',
    seed: int | None = None,
    backbone_weights: str | os.PathLike | None = None,
    feature_cache: dict[str, Any] | None = None,
    optimum: float | Sequence[float] | str | None = None,
    classes: Sequence[str] | None = None,
    small_checkpoints: bool = False,
    verbose: bool = False,
) -> TrainResult:
    """Train a model.

    Whatever the config, epochs are made reproducible (:class:`ReproducibleEpochHook`), batch
    statistics agree between processes (:class:`SyncTrainedBuffersHook`), a loss that is no number
    ends the run (:class:`FiniteLossHook`), data and checkpoint have to match
    (:class:`MatchingCheckpointHook`), and a resumed run follows its own config
    (:class:`ResumeHook`). A config replaces each of them by its name in ``default_hooks``.

    Args:
        cfg (Config | str | PathLike): A config, which is left as it is, or what
            :func:`load_config` takes.
        work_dir (str | PathLike, optional): Folder of logs and checkpoints. Defaults to None,
            which means the config's, or ``work_dirs/<name of the config>``.
        resume (bool | str | PathLike): A checkpoint to go on from, or True for the newest readable
            one of ``work_dir``. Defaults to False, which means what the config says.
        amp (bool): Mixed precision: float16 on CUDA, bfloat16 on CPU. Defaults to False.
        no_validate (bool): Do not validate during training. Defaults to False.
        auto_scale_lr (bool): Scale the learning rate by the batch size of all processes over
            ``auto_scale_lr.base_batch_size``. Defaults to False.
        pin_memory (bool): Let data loaders pin memory where there is a GPU. Defaults to True.
        persistent_workers (bool): Keep the loaders' workers between epochs. Defaults to True.
        launcher (str): ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``. Defaults to
            ``'none'``. Where ``train_dataloader.batch_size`` is the config's
            ``total_batch_size``, each process takes its share of it.
        seed (int, optional): Seed in the place of the config's. Defaults to None.
        backbone_weights (str | PathLike, optional): A checkpoint of the backbone or of a model
            that has it, or ``'none'`` for random weights, in the place of the published ones.
            Defaults to None, which means ``backbone_weights`` of the config, if it has any.
        feature_cache (dict, optional): Run the frozen backbone once and train on stored features:
            options of :class:`FeatureCacheTrainLoop`, ``{}`` for its defaults. Defaults to None,
            which means what the config says.
        optimum (float | Sequence[float] | str, optional): Solve for the optimum on stored
            features, in the place of the config's schedule: the weight decay of
            :class:`OptimumTrainLoop`. Defaults to None, which means what the config says.
        classes (Sequence[str], optional): Train the heads of these classes alone
            (:func:`select_classes`); what keeps them from being what they would be in other company
            is said in a warning. Defaults to None, which means all.
        small_checkpoints (bool): Save only what is trained (:class:`SmallCheckpointHook`).
            Defaults to False.
        verbose (bool): Show MMEngine's account of environment, config and hooks on the screen,
            too; it is in the log file always. Defaults to False.

    Returns:
        TrainResult: Where the checkpoint is and what it scored.

    Raises:
        FileNotFoundError: If a config, checkpoint or data set does not exist.
        ConnectionError: If weights cannot be downloaded.
        ValueError: If settings do not fit together, no checkpoint can be read, or what is resumed
            is not of this model and these classes.
        FloatingPointError: If the loss becomes infinite or no number.
        OSError: If a folder cannot be made, or its disk is full.
    """
    cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else load_config(cfg)
    set_work_dir(cfg, work_dir)
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness', {}), seed=seed)
    if no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise ValueError(
                'Expected the config to set `auto_scale_lr.base_batch_size`, from '
                'which the learning rate could be scaled.'
            )
        cfg.auto_scale_lr.enable = True
    weights = backbone_weights or cfg.get('backbone_weights')
    if weights:
        replace_pretrained(cfg, weights)
    if feature_cache is not None:
        set_feature_cache(cfg, feature_cache)
    if optimum is not None:
        set_optimum(cfg, optimum)
    if classes is not None:
        say_what_couples(cfg, select_classes(cfg, classes))
    set_loader_defaults(
        cfg,
        ('train_dataloader', 'val_dataloader', 'test_dataloader'),
        pin_memory,
        persistent_workers,
    )
    notes = _set_resume(cfg, resume)
    add_hooks(
        cfg,
        reproducible_epoch=dict(type='mmpretrain.ReproducibleEpochHook'),
        sync_trained_buffers=dict(type='mmpretrain.SyncTrainedBuffersHook'),
        finite_loss=dict(type='mmpretrain.FiniteLossHook'),
        matching_checkpoint=dict(type='mmpretrain.MatchingCheckpointHook'),
        resume=dict(type='mmpretrain.ResumeHook'),
    )
    if small_checkpoints:
        add_hooks(cfg, small_checkpoint=dict(type='mmpretrain.SmallCheckpointHook'))
    _check_optimizer(cfg)
    start_processes(cfg, launcher)
    split_total_batch(cfg)

    screen = Screen(verbose)
    with screen.in_use(), explain_downloads(cfg):
        runner = build_runner(cfg)
        for note in notes:
            runner.logger.warning(note)
        if weights and weights != 'none':
            load_backbone(runner.model, weights)
        scores = _LastScores()
        runner.register_hook(scores)
        runner.register_hook(StartHook(screen))
        with explain_full_disk(*written_folders(cfg)):
            runner.train()
        if scores.metrics is None and runner.val_loop is not None:
            # The run before this one had trained to the end, but perhaps not said what that scored.
            runner.val_loop.run()
        return _report(runner, scores.metrics or {})


class _LastScores(Hook):
    """Remember what the last validation of this run gave."""

    def __init__(self) -> None:
        self.metrics: dict | None = None

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.metrics = metrics


def _set_resume(cfg: Config, resume: bool | str | os.PathLike) -> list[str]:
    """Choose the checkpoint to go on from, and return what there is to say about it."""
    if not resume and cfg.get('resume'):
        # As MMEngine reads a config: from `load_from`, or else from the work dir.
        resume = cfg.get('load_from') or True
    if not resume:
        return []
    cfg.resume = True
    if resume not in (True, 'auto'):
        cfg.load_from = os.fspath(resume)
        if '://' not in cfg.load_from:
            check_readable(Path(resume), RESUMABLE)
        return []
    path, notes = newest_readable(Path(cfg.work_dir))
    if path is None:
        cfg.resume = False
        return [f'{cfg.work_dir} holds no checkpoint yet: training starts from the beginning.']
    cfg.load_from = str(path)
    return notes


def _check_optimizer(cfg: Config) -> None:
    """Raise, as registries do, where MMEngine says that `None` is not a callable object."""
    name = (cfg.optim_wrapper.get('optimizer') or {}).get('type')
    if isinstance(name, str) and OPTIMIZERS.get(name) is None:
        raise KeyError(f'{name} is not in the mmpretrain::optimizer registry')


def _report(runner: Runner, metrics: dict) -> TrainResult:
    """Say where the checkpoint is and what it scored."""
    checkpoint, best = (runner.cfg.load_from if runner.cfg.get('resume') else None), None
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook):
            checkpoint = hook.last_ckpt or checkpoint
            best = getattr(hook, 'best_ckpt_path', None)
    metrics = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    scores = ', '.join(f'{name} {value:.2f}' for name, value in metrics.items())
    if best is not None:
        runner.logger.info(f'Best checkpoint: {best}')
    runner.logger.info(f'Last checkpoint: {checkpoint or "none was saved"}')
    runner.logger.info(f'Last validation: {scores or "none"}')
    _say_what_next(runner, best or checkpoint)
    return TrainResult(
        checkpoint=Path(checkpoint) if checkpoint else None,
        metrics=metrics,
        best_checkpoint=Path(best) if best else None,
        runner=runner,
    )


def _say_what_next(runner: Runner, checkpoint: str | None) -> None:
    """Name the command that draws class maps, and pictures that are there already."""
    pictures = Path(runner._log_dir) / 'vis_data' / 'vis_image'
    if pictures.is_dir():
        runner.logger.info(f'Pictures of this run: {pictures}')
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    if checkpoint and runner.cfg.filename and isinstance(model, FrozenBackboneClassifier):
        config, checkpoint = _as_given(runner.cfg.filename), _as_given(checkpoint)
        runner.logger.info(
            'What each class is seen by, drawn into the folder class_maps: '
            f'python tools/class_maps.py {config} {checkpoint} --dataset test'
        )


def _as_given(path: str) -> str:
    """A path as short as it can be typed from here."""
    relative = os.path.relpath(path)
    return path if relative.startswith(os.pardir) else relative
