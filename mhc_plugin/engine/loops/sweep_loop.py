"""Train a head under many settings at once, on one pass over stored features."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import Runner
from mmpretrain.registry import LOOPS, MODELS
from torch import nn
from torch.utils.data import DataLoader

from .feature_cache_loops import FeatureCacheTrainLoop


@dataclass
class SweptHead:
    """A head under one of the settings of a sweep.

    Attributes:
        head (nn.Module): The head, with a loss of its own.
        optim_wrapper (OptimWrapper): Of its parameters.
        param_schedulers (list): Of its learning rate.
        losses (list[float]): Its mean loss in every epoch.
        metrics (dict[str, float]): What validation gave.
        checkpoint (Path, optional): Its checkpoint.
        error (str, optional): Why its training ended early.
    """

    head: nn.Module
    optim_wrapper: OptimWrapper
    param_schedulers: list[_ParamScheduler] | None
    losses: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None
    error: str | None = None


@LOOPS.register_module()
class SweepTrainLoop(FeatureCacheTrainLoop):
    """Train a head under many settings at once, each as in a run of its own.

    Every setting has a head, a loss, an optimizer and schedules of its own. All heads start from
    the same weights, get the same batches and draw the same dropout, so each ends, to the bit on
    CPU, where a run of its own with the same seed ends. A setting whose loss becomes infinite or no
    number is left out from there on, with its ``error``, and the others go on.

    At the end every head is validated and saved as
    ``<work_dir>/<name of the setting>/epoch_<n>.pth``. Memory and time of the head, not of the
    data, grow with the number of settings. The log shows the mean loss of all settings and the
    learning rate of the first.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        max_epochs (int): Number of epochs.
        settings (dict[str, dict]): For every name, which is a folder's, what a config would have
            as ``optim_wrapper``, ``param_scheduler`` and ``loss``, the head's; without the last
            two, there is no schedule and the model's own loss.
        cache (dict, optional): Arguments of :class:`CacheOptions`. Defaults to None, which means
            its defaults.

    Raises:
        ValueError: At :meth:`run`, if there are several processes or a hook that averages weights,
            which knows one head alone; or as :class:`FeatureCacheTrainLoop`.
        FloatingPointError: If no setting is left.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        max_epochs: int,
        settings: dict[str, dict[str, Any]],
        cache: dict | None = None,
    ) -> None:
        # Validation, of every head, is this loop's own.
        super().__init__(runner, dataloader, max_epochs, val_begin=max_epochs + 1, cache=cache)
        self.settings = settings
        self.heads: dict[str, SweptHead] = {}

    @property
    def running(self) -> dict[str, SweptHead]:
        """The settings that are still trained."""
        return {name: own for name, own in self.heads.items() if own.error is None}

    def run(self) -> nn.Module:
        """Store the features that are missing, and train and validate every head."""
        if get_world_size() > 1:
            raise ValueError(
                f'A sweep runs in one process, but there are {get_world_size()}. Start it without '
                'a launcher.'
            )
        averaging = [type(hook).__name__ for hook in self.runner.hooks if isinstance(hook, EMAHook)]
        if averaging:
            raise ValueError(
                f'{averaging[0]} averages the weights of one head, but a sweep has '
                f'{len(self.settings)}. Take it out of the config.'
            )
        first = self.runner.model.head
        for name, setting in self.settings.items():
            self.heads[name] = self._begin(copy.deepcopy(first), **setting)
        self.runner.param_schedulers = {
            name: own.param_schedulers or [] for name, own in self.heads.items()
        }
        return super().run()

    def _begin(
        self,
        head: nn.Module,
        optim_wrapper: dict,
        param_scheduler: dict | list | None = None,
        loss: dict | None = None,
    ) -> SweptHead:
        runner, device = self.runner, next(head.parameters()).device
        if loss is not None:
            head.loss_module = MODELS.build(loss).to(device)
        runner.model.head = head
        runner.optim_wrapper = runner.build_optim_wrapper(copy.deepcopy(optim_wrapper))
        runner.optim_wrapper.initialize_count_status(runner.model, self._iter, self._max_iters)
        schedulers = None
        if param_scheduler is not None:
            schedulers = runner.build_param_scheduler(copy.deepcopy(param_scheduler))
        return SweptHead(head, runner.optim_wrapper, schedulers)

    def _use(self, own: SweptHead) -> None:
        """Let the model and the hooks see one of the heads."""
        self.runner.model.head, self.runner.optim_wrapper = own.head, own.optim_wrapper

    def run_epoch(self) -> None:
        """Iterate one epoch, and after the last one validate and save."""
        for own in self.heads.values():
            own.head.train()
        self._sums = dict.fromkeys(self.heads, 0.0)
        super().run_epoch()
        for name, own in self.running.items():
            own.losses.append(self._sums[name] / len(self.dataloader))
        if self._epoch == self._max_epochs:
            self._finish()

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """One step of every head on one batch.

        Args:
            idx (int): Index of the batch in the epoch.
            data_batch (dict): The batch.
        """
        runner = self.runner
        self._use(next(iter(self.running.values())))
        runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        if idx == 0:
            self._seed_dropout()
        losses, running = [], self.running
        for name, own in running.items():
            self._use(own)
            # Each draws what a run of its own would, so all but the last give it back.
            with _random_numbers_kept(enabled=len(losses) < len(running) - 1):
                outputs = runner.model.train_step(data_batch, optim_wrapper=own.optim_wrapper)
            loss = float(outputs['loss'].detach())
            losses.append(loss)
            self._sums[name] += loss
            if not math.isfinite(loss):
                own.error = f'The loss is {loss} in epoch {self._epoch + 1}.'
                runner.logger.warning(f'{name}: {own.error}')
        left = [loss for loss in losses if math.isfinite(loss)]
        if not left:
            raise FloatingPointError(
                f'The loss of every setting is infinite or no number by epoch {self._epoch + 1}. '
                'Look at the data, or lower the learning rates.'
            )
        self._use(next(iter(self.running.values())))
        outputs = dict(loss=torch.tensor(left).mean())
        runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _seed_dropout(self) -> None:
        """Let every head draw as the one does that the hooks of the training have seeded."""
        entropy = getattr(list(self.heads.values())[-1].head, 'entropy', None)
        for own in self.heads.values():
            if entropy is not None:
                own.head.entropy = entropy
                own.head.seed_dropout(self.runner.rank, self.runner.epoch)

    def _finish(self) -> None:
        """Validate and save every head as a run of its own would."""
        runner, schedulers = self.runner, self.runner.param_schedulers
        for name, own in self.running.items():
            self._use(own)
            runner.param_schedulers = own.param_schedulers
            folder, file = Path(runner.work_dir) / name, f'epoch_{self._epoch}.pth'
            runner.logger.info(f'Setting {name}: loss {own.losses[-1]:.4f}')
            try:
                if runner.val_loop is not None:
                    own.metrics = runner.val_loop.run()
                meta = dict(epoch=self._epoch, iter=self._iter)
                runner.save_checkpoint(str(folder), file, meta=meta)
                own.checkpoint = folder / file
            except FloatingPointError as error:
                own.error = str(error)
        runner.param_schedulers = schedulers


@contextmanager
def _random_numbers_kept(enabled: bool) -> Iterator[None]:
    devices: Sequence[int] = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices, enabled=enabled):
        yield
