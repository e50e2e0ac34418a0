"""Checkpoints without the backbone, which is frozen and named by its hash instead."""

import os

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.registry import HOOKS
from torch import nn

from mhc_plugin.models import FrozenBackboneClassifier
from mhc_plugin.models.backbone_weights import BACKBONE, RECORD, BackboneRecord, weights_source
from mhc_plugin.utils.tensor_hash import hash_weights


@HOOKS.register_module()
class SmallCheckpointHook(Hook):
    """Save only what was trained, and which backbone it was trained on.

    A checkpoint then holds, in the place of the frozen backbone, the hash of its weights and where
    they came from; both are in its ``meta`` for people, too. ``FrozenBackboneClassifier`` puts the
    two together when it loads one: it takes its own backbone if the hash is right, else
    initialises it as its config says, else reads it from where it came from, and refuses another.

    The hook has no part in loading, so such a checkpoint tests, resumes and predicts everywhere.

    Raises:
        ValueError: When training begins, if the backbone is not a ``FrozenBackboneClassifier``'s,
            or its weights are random and could not be found again.
    """

    # After EMAHook (NORMAL), which adds its own state dict.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._record: BackboneRecord | None = None
        self._loaded_from: str | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note where the backbone comes from if it comes from a checkpoint.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): What was loaded.
        """
        state = checkpoint.get('state_dict', checkpoint)
        if RECORD in state:
            self._loaded_from = BackboneRecord.pop_from(dict(state)).source
        elif not runner._resume and any(BACKBONE in name for name in state):
            source = runner._load_from
            self._loaded_from = source if '://' in source else os.path.abspath(source)

    def before_train(self, runner: Runner) -> None:
        """Name the backbone.

        Args:
            runner (Runner): The runner of the training process.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, FrozenBackboneClassifier):
            raise ValueError(
                'Checkpoints without a backbone need a `FrozenBackboneClassifier`, '
                f'whose backbone is not trained, but got `{type(model).__name__}`.'
            )
        source = self._source(runner, model)
        if source is None:
            raise ValueError(
                'A checkpoint without the backbone is of no use where its weights are random: they '
                'could not be found again. Give `--backbone-weights PATH`, or save whole '
                'checkpoints.'
            )
        self._record = BackboneRecord(hash_weights(model.backbone), source)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the backbone's name in its place.

        Args:
            runner (Runner): The runner of the training process.
            checkpoint (dict): What is to be saved, changed in place.
        """
        self._record.replace_backbone(checkpoint['state_dict'])
        if 'ema_state_dict' in checkpoint:
            self._record.replace_backbone(checkpoint['ema_state_dict'], 'module.')
        checkpoint['meta']['backbone'] = dict(
            sha256=self._record.sha256, source=self._record.source
        )

    def _source(self, runner: Runner, model: nn.Module) -> str | None:
        if self._loaded_from is not None:
            return self._loaded_from
        weights = runner.cfg.get('backbone_weights')
        if weights and weights != 'none':
            return os.path.abspath(weights)
        backbone_cfg = (runner.cfg.get('model') or {}).get('backbone') or {}
        if backbone_cfg.get('pretrained'):
            return f'the published weights of {backbone_cfg.get("model_name")}'
        return weights_source(model.backbone) or weights_source(model)
