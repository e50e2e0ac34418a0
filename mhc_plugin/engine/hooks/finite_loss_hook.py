"""Trainings that end where their loss is no number any more."""

import math
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import HOOKS
from torch import Tensor, nn


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop where the loss or a trained weight is not finite, before it is saved.

    The sentence names epoch, iteration, classes, images whose features are not finite, and the
    last checkpoint, which is good: none is saved after.

    Args:
        action (str): ``'stop'``, or ``'warn'``, which says so once and goes on, as MMEngine does.
            Defaults to ``'stop'``.

    Raises:
        ValueError: If ``action`` is another one.
        FloatingPointError: In training.
    """

    def __init__(self, action: str = 'stop') -> None:
        if action not in ('stop', 'warn'):
            raise ValueError(
                f"Expected argument `action` to be one of ('stop', 'warn'), but got {action!r}."
            )
        self.action = action
        self._has_warned = self._has_saved = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Look at the loss, which MMEngine has taken off the device for its log.

        Args:
            runner (Runner): The runner of the training process.
            batch_idx (int): Index of the batch in the epoch.
            data_batch (dict, optional): The batch.
            outputs (dict, optional): The losses.
        """
        loss = (outputs or {}).get('loss')
        if loss is None or self._has_warned:
            return
        value = float(loss.detach() if isinstance(loss, Tensor) else loss)
        if not math.isfinite(value):
            where = f'epoch {runner.epoch + 1}, iteration {batch_idx + 1} of it'
            self._act(runner, f'The loss is {value} in {where}', _causes(runner, data_batch))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Look at what was trained: the last step of a finite loss may have gone too far.

        Args:
            runner (Runner): The runner of the training process.
            checkpoint (dict): What is to be saved.
        """
        trained = {
            name for name, value in _unwrap(runner).named_parameters() if value.requires_grad
        }
        bad = [
            name
            for name, value in checkpoint['state_dict'].items()
            if name in trained and not torch.isfinite(value).all()
        ]
        if not bad:
            self._has_saved = True
        elif not self._has_warned:
            self._act(runner, f'After epoch {runner.epoch + 1} {bad[0]} is not finite', '')

    def _act(self, runner: Runner, what: str, causes: str) -> None:
        pointer = Path(runner.work_dir) / 'last_checkpoint'
        # Written after a checkpoint is; the hook that saves notes the name before.
        saved = self._has_saved and pointer.is_file()
        last = pointer.read_text() if saved else runner._load_from
        kept = f'the last good checkpoint is {last}' if last else 'no checkpoint was saved before'
        sentence = f'{what}{causes}; {kept}.'
        if self.action == 'stop':
            raise FloatingPointError(
                f'{sentence} Look at the data, or lower the learning rate; '
                '`--cfg-options default_hooks.finite_loss.action=warn` goes on.'
            )
        self._has_warned = True
        runner.logger.warning(sentence)


def _unwrap(runner: Runner) -> nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


@torch.no_grad()
def _causes(runner: Runner, data_batch: dict | None) -> str:
    """The images, or else the classes, that are at fault, for a sentence."""
    model = _unwrap(runner)
    if not isinstance(model, ImageClassifier) or data_batch is None:
        return ''
    model.eval()
    batch = model.data_preprocessor(data_batch, False)
    feats = model.extract_feat(batch['inputs'])
    logits = model.head(feats)
    model.train()
    bad_images = torch.stack([_not_finite(feat) for feat in feats if feat.numel()]).any(0)
    if bad_images.any():
        samples = {i: batch['data_samples'][i] for i in bad_images.nonzero()[:, 0].tolist()}
        names = [
            str(sample.get('img_path', sample.get('sample_idx', f'image {i} of the batch')))
            for i, sample in samples.items()
        ]
        return f', where the features of {_listed(names)} are not finite'
    metainfo = getattr(runner.train_dataloader.dataset, 'metainfo', {})
    classes = metainfo.get('classes') or [str(c) for c in range(logits.shape[1])]
    # The step that the loss led to has carried it into the weights of its class alone.
    names = [repr(classes[c]) for c in _not_finite(logits.T).nonzero()[:, 0].tolist()]
    if names:
        return f', of class {_listed(names)}'
    largest = logits.abs().amax(0)
    c = int(largest.argmax())
    return f', where class {classes[c]!r} has a logit of {float(largest[c]):.3g}'


def _not_finite(values: Tensor) -> Tensor:
    """Which entries along the first axis hold a value that is not finite."""
    return ~torch.isfinite(values).flatten(1).all(1)


def _listed(names: list[str]) -> str:
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(names[:3]) + more
