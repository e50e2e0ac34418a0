"""Train linear heads by solving for their optimum, on stored features."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpretrain.models.heads import MultiLabelLinearClsHead
from mmpretrain.registry import LOOPS
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mhc_plugin.features.dataset import FeatureDataset
from mhc_plugin.features.description import INDEX_KEYS, LABEL_KEYS, describe
from mhc_plugin.features.samples import target_table
from mhc_plugin.features.store import FeatureStore
from mhc_plugin.features.versions import UndescribableError
from mhc_plugin.functional.average_precision import average_precision
from mhc_plugin.functional.checks import check_choice
from mhc_plugin.functional.linear_optimum import cross_validate, fit_linear, per_class
from mhc_plugin.functional.solver import LinearProblem
from mhc_plugin.models import FrozenBackboneClassifier, MultiHeadClsHead, PerHeadBCELoss
from mhc_plugin.utils.batch import Features
from mhc_plugin.utils.known_pairs import KnownPairs
from mhc_plugin.utils.logs import log_table
from mhc_plugin.utils.seeding import sample_seed

from .feature_cache_loops import FeatureCacheTrainLoop

NUM_FOLDS = 5
# Weight decays that are tried, in units of the variance of a feature.
PATH = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
CHOICES = ('cv', 'cv-per-class')
# A table of more classes is no longer read.
MAX_TABLE_ROWS = 100


@LOOPS.register_module()
class OptimumTrainLoop(FeatureCacheTrainLoop):
    r"""Set linear heads to where their loss with weight decay is smallest.

    The loss of ``PerHeadBCELoss`` over all stored rows, an image's views being a row each, plus
    ``weight_decay / 2`` times a class's squared weights, as SGD decays them, has one optimum per
    class: without learning rate, epochs, batch size, order or seed, and whatever the other classes
    (:mod:`mhc_plugin.functional.solver`). Optimizer and schedule of the config have no part in it.

    It takes the place of one epoch, so that hooks, validation and checkpoints are as ever.

    With ``'cv'`` the weight decay is the one of seven, from 10 to 0.01 times the variance of a
    feature rounded to a power of ten, that gives the best mean average precision on held-out images
    of five folds. An image's fold follows from the bytes of its files, so that copies and views
    stay together, and other images change nothing. That choice is one for all classes;
    ``'cv-per-class'`` takes every class's own.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): Of images.
        weight_decay (float | Sequence[float] | str): Above 0, one or one per class; ``'cv'`` or
            ``'cv-per-class'``. Defaults to ``'cv'``.
        decay_bias (bool): Whether the bias is decayed, too, as SGD does unless its wrapper's
            ``paramwise_cfg`` has ``bias_decay_mult=0``. Defaults to False.
        tolerance (float): Of the norm of a class's gradient, relative to that at weight 0. Defaults
            to 1e-8.
        cache (dict, optional): Arguments of :class:`CacheOptions`. Defaults to None, which means
            its defaults.

    Raises:
        ValueError: If an argument does not fit; at :meth:`run` if a class's loss is not convex in
            its head's parameters, or there are several processes.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader | dict,
        weight_decay: float | Sequence[float] | str = 'cv',
        decay_bias: bool = False,
        tolerance: float = 1e-8,
        cache: dict | None = None,
    ) -> None:
        if isinstance(weight_decay, str):
            check_choice('weight_decay', weight_decay, CHOICES)
        super().__init__(runner, dataloader, max_epochs=1, cache=cache)
        self.weight_decay = weight_decay
        self.decay_bias = decay_bias
        self.tolerance = tolerance

    def run(self) -> nn.Module:
        """Check that there is one optimum before anything is computed, and train."""
        if get_world_size() > 1:
            raise ValueError(
                f'The optimum is found in one process, but there are {get_world_size()}. Start it '
                'without a launcher.'
            )
        check_convex(self._model)
        return super().run()

    @property
    def _model(self) -> nn.Module:
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    def run_epoch(self) -> None:
        """Solve for all heads."""
        self.runner.call_hook('before_train_epoch')
        dataset = self.dataloader.dataset
        targets = row_targets(dataset, self._model.head.num_classes)
        parts = linear_parts(self._model)
        problems = [
            LinearProblem(StoredRows(dataset, self._model, part), float(self.decay_bias))
            for part in parts
        ]
        start = time.perf_counter()
        decay = self._choose_decay(parts, problems, targets)
        self._fit(parts, problems, targets, decay, start)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def _weights(self, num_classes: int) -> tuple[Tensor, Tensor]:
        """Weights of every class's loss, and of its positives in it."""
        loss = self._model.head.loss_module
        positive = 1.0 if loss.pos_weight is None else loss.pos_weight
        whole = per_class('loss_weight', loss.loss_weight, num_classes, torch.device('cpu'))
        if loss.head_reduction == 'mean':
            whole = whole / num_classes
        return whole, per_class('pos_weight', positive, num_classes, torch.device('cpu'))

    def _choose_decay(
        self, parts: list['LinearPart'], problems: list[LinearProblem], targets: Tensor
    ) -> Tensor:
        num_classes = targets.shape[1]
        if not isinstance(self.weight_decay, str):
            cpu = torch.device('cpu')
            return per_class('weight_decay', self.weight_decay, num_classes, cpu, above=True)
        path = decay_path(problems)
        folds = image_folds(self.dataloader.dataset, self.cache, self.runner)
        weights, pos_weights = self._weights(num_classes)
        scores = torch.empty(len(path), num_classes, dtype=torch.float64)
        for part, problem in zip(parts, problems):
            scores[:, part.classes] = cross_validate(
                problem,
                targets[:, part.classes],
                folds,
                path,
                held_out_precision,
                weights[part.classes],
                pos_weights[part.classes],
            )
        means = scores.nanmean(1)
        best = int(np.argmax(means.nan_to_num(-1).numpy()))
        chosen = torch.full((num_classes,), best)
        if self.weight_decay == 'cv-per-class':
            own = torch.from_numpy(np.argmax(scores.nan_to_num(-1).numpy(), 0))
            chosen = torch.where(scores.isnan().all(0), chosen, own)
        table = Table(title=f'Average precision on held-out images of {NUM_FOLDS} folds')
        for column in ('weight decay', 'mean', 'lowest', 'highest', 'chosen by'):
            table.add_column(column, justify='right')
        for index, (decay, row) in enumerate(zip(path, scores)):
            row, count = row[~row.isnan()], int((chosen == index).sum())
            table.add_row(
                f'{decay:g}',
                *(f'{100 * f(row):.2f}' if len(row) else '-' for f in (torch.mean, min, max)),
                f'{count} of {num_classes} classes' if count else '',
            )
        log_table(table)
        if best in (0, len(path) - 1):
            self.runner.logger.warning(
                f'The best weight decay of those tried, {path[best]:g}, is the '
                f'{"last" if best else "first"} one: one beyond it may be better.'
            )
        return torch.tensor(path, dtype=torch.float64)[chosen]

    def _fit(
        self,
        parts: list['LinearPart'],
        problems: list[LinearProblem],
        targets: Tensor,
        decay: Tensor,
        start: float,
    ) -> None:
        num_classes = targets.shape[1]
        weights, pos_weights = self._weights(num_classes)
        gradient, steps = torch.zeros(num_classes, dtype=torch.float64), 0
        at_prior = torch.zeros(num_classes, dtype=torch.bool)
        for part, problem in zip(parts, problems):
            found = fit_linear(
                problem,
                targets[:, part.classes],
                decay[part.classes],
                weights[part.classes],
                pos_weights[part.classes],
                self.tolerance,
            )
            part.set(found.weight, found.bias)
            gradient[part.classes] = found.relative_gradient.cpu()
            at_prior[part.classes] = found.at_prior.cpu()
            steps = max(steps, found.newton_steps)
        seconds = time.perf_counter() - start
        classes = self.dataloader.dataset.metainfo.get('classes') or range(num_classes)
        names = [str(name) for name in classes]
        if num_classes <= MAX_TABLE_ROWS:
            table = Table(title='Optimum')
            for column in ('class', 'positives', 'known', 'weight decay', 'relative gradient'):
                table.add_column(column, justify='left' if column == 'class' else 'right')
            positives, known = (targets > 0.5).sum(0), (targets >= 0).sum(0)
            for c, name in enumerate(names):
                row = positives[c], known[c], f'{decay[c]:g}'
                table.add_row(
                    name, *map(_text, row), 'prior' if at_prior[c] else f'{gradient[c]:.1e}'
                )
            log_table(table)
        logger = self.runner.logger
        if at_prior.any():
            logger.warning(
                'Without a positive or without a negative among their known targets, so that '
                'nothing but their prior can be learnt: '
                + ', '.join(name for name, prior in zip(names, at_prior) if prior)
            )
        logger.info(
            f'Optimum of {num_classes} classes on {len(targets)} rows: {seconds:.2f} s, at most '
            f'{steps} Newton steps, largest relative gradient {gradient.max():.1e}'
        )


def _text(value: Tensor | str) -> str:
    return value if isinstance(value, str) else str(value.item())


@dataclass(frozen=True)
class LinearPart:
    """Classes whose logits are linear in the same vector.

    Args:
        inputs (tuple[tuple[int, range], ...]): The (stage, channels) pairs that make the vector,
            stages as positions in the tuple of features.
        classes (list[int]): The classes.
        layers (list[nn.Linear]): Whose rows, one after the other, are theirs.
    """

    inputs: tuple[tuple[int, range], ...]
    classes: list[int]
    layers: list[nn.Linear]

    @torch.no_grad()
    def set(self, weight: Tensor, bias: Tensor) -> None:
        """Set the layers to weights ``(len(classes), K)`` and biases."""
        start = 0
        for layer in self.layers:
            stop = start + layer.out_features
            layer.weight.copy_(weight[start:stop])
            layer.bias.copy_(bias[start:stop])
            start = stop


def linear_parts(model: FrozenBackboneClassifier) -> list[LinearPart]:
    """The parts of a head that :func:`check_convex` has let pass."""
    head = model.head
    if isinstance(head, MultiLabelLinearClsHead):
        layer = head.fc
        inputs = ((-1, range(layer.in_features)),)
        return [LinearPart(inputs, list(range(head.num_classes)), [layer])]
    parts: dict[tuple, LinearPart] = {}
    for index, (feeds, group) in enumerate(zip(head.feeds.heads, head.head_groups)):
        part = parts.setdefault(feeds, LinearPart(feeds, [], []))
        part.classes.extend(group)
        part.layers.append(head.head_view(index).fc[-1])
    return list(parts.values())


def check_convex(model: nn.Module) -> None:
    """Make sure that every class's loss has one optimum.

    Raises:
        ValueError: If not; the sentence says why.
    """
    head = getattr(model, 'head', None)
    kind, reason = type(head), None
    loss = getattr(head, 'loss_module', None)
    if kind not in (MultiHeadClsHead, MultiLabelLinearClsHead):
        reason = (
            f'`{kind.__name__}` is not known to be linear in its parameters, as '
            '`MultiHeadClsHead` and `MultiLabelLinearClsHead` are'
        )
    elif kind is MultiHeadClsHead and len(head.hidden):
        reason = 'its hidden layers make the logits no linear function of the parameters'
    elif getattr(head, 'dropout', 0) > 0:
        reason = f'its dropout of {head.dropout:g} makes the loss another one in every step'
    elif type(loss) is not PerHeadBCELoss:
        reason = f'`{type(loss).__name__}` is not `PerHeadBCELoss`, which is known to be convex'
    if reason is not None:
        raise ValueError(
            f'The loss of this head has no optimum that could be solved for: {reason}. Train it '
            'by epochs, without `--optimum`.'
        )


class StoredRows:
    """What some classes read of all stored rows, view after view.

    Args:
        dataset (FeatureDataset): The stored features.
        model (FrozenBackboneClassifier): Pools what is stored as maps.
        part (LinearPart): The classes.
    """

    def __init__(
        self, dataset: FeatureDataset, model: FrozenBackboneClassifier, part: LinearPart
    ) -> None:
        self.reader = dataset.reader
        self.model = model
        self.inputs = part.inputs

    def __len__(self) -> int:
        return self.reader.layout.num_rows

    @torch.no_grad()
    def __getitem__(self, rows: slice) -> Tensor:
        """Features, float32 ``(n, K)``."""
        stored = self.reader.gather(np.arange(rows.start, min(rows.stop, len(self))))
        feats = self.model.extract_feat(Features(stored))
        head = self.model.head
        if isinstance(head, MultiHeadClsHead):
            pooled = [head.global_pool(x) for x in head.pre_logits(feats)]
            feats = dict(zip(head.stages, pooled))
        return torch.cat(
            [feats[stage][:, part.start : part.stop] for stage, part in self.inputs], 1
        )


def row_targets(dataset: FeatureDataset, num_classes: int) -> Tensor:
    """Targets of all stored rows, ``(rows, num_classes)``; see :func:`target_table`."""
    targets = dataset.targets
    if targets is None:
        targets = target_table(dataset, dataset.reader, num_classes)
    if isinstance(targets, KnownPairs):
        targets = targets.dense()
    # Rows of one view come one after another.
    return targets.repeat(dataset.reader.layout.num_rows // len(targets), 1)


def decay_path(problems: Sequence[LinearProblem]) -> list[float]:
    """Weight decays to try, the largest first: round numbers around the variance of a feature."""
    variances = []
    for problem in problems:
        moments = problem.moments()
        variances.append((moments.diagonal()[:-1] - moments[-1, :-1] ** 2).mean().item())
    scale = 10.0 ** round(math.log10(max(sum(variances) / len(variances), 1e-12)))
    return [float(f'{factor * scale:g}') for factor in PATH]


def image_folds(dataset: FeatureDataset, cache, runner: Runner) -> Tensor:
    """The fold of every stored row, int ``(rows,)``: that of what is known of its image.

    Files count by their bytes, wherever they are; labels and numbers of images do not count.
    """
    hashes = FeatureStore(cache.cache_dir).file_hashes(cache.trust_mtime)
    folds, left_out = [], INDEX_KEYS | LABEL_KEYS | {'keep_classes'}
    # Not what is known of the classes that are kept.
    info_of = getattr(dataset, 'unlabelled_info', dataset.get_data_info)
    try:
        for index in range(len(dataset)):
            info = info_of(index)
            known = {name: value for name, value in info.items() if name not in left_out}
            text = json.dumps(describe(known, hashes), sort_keys=True)
            digest = hashlib.sha256(text.encode()).digest()
            folds.append(int.from_bytes(digest[:8], 'big') % NUM_FOLDS)
        hashes.save()
    except UndescribableError as error:
        runner.logger.warning(
            f'Folds are drawn by the position of an image, since its content is not known: {error}.'
        )
        folds = [sample_seed(index) % NUM_FOLDS for index in range(len(dataset))]
    return torch.tensor(folds).repeat(dataset.reader.layout.views)


def held_out_precision(logits: Tensor, targets: Tensor) -> Tensor:
    """Average precision of every class ``(C,)``; a soft target counts as what it is nearer to."""
    hard = torch.where(targets < 0, -1, (targets >= 0.5).to(torch.int8))
    return average_precision(logits, hard)
