"""What our metrics read from data samples."""

from collections.abc import Sequence

import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import label_to_onehot
from torch import Tensor


def own_copy(tensor: Tensor) -> Tensor:
    """Copy to the CPU, so that a result does not hold the batch that it is a view of."""
    return tensor.detach().to('cpu', copy=True)


def read_scores(data_sample: dict) -> tuple[Tensor, Tensor]:
    """Read scores and targets of one sample.

    Args:
        data_sample (dict | DataSample): With ``pred_score`` and either ``gt_score`` (1, 0, -1 for
            unknown) or ``gt_label`` (indices of the positives; all others are negative).

    Returns:
        tuple[Tensor, Tensor]: ``pred_score`` and the target, each ``(num_classes,)`` on the CPU.

    Raises:
        ValueError: If a field is missing, the lengths differ, or a label is not a class.
    """
    pred_score = data_sample.get('pred_score')
    if pred_score is None:
        raise ValueError(
            'Expected data samples with `pred_score`, but got one without. Is the '
            'head a multi-label one?'
        )
    return own_copy(pred_score), read_target(data_sample, len(pred_score))


def read_target(data_sample: dict, num_classes: int) -> Tensor:
    gt_score = data_sample.get('gt_score')
    if gt_score is not None:
        if len(gt_score) != num_classes:
            raise ValueError(
                f'Expected `gt_score` to have the length of `pred_score`, '
                f'{num_classes}, but got {len(gt_score)}.'
            )
        return own_copy(gt_score)

    gt_label = data_sample.get('gt_label')
    if gt_label is None:
        raise ValueError(
            'Expected data samples with `gt_score` or `gt_label`, but got one with neither.'
        )
    labels = torch.as_tensor(gt_label).reshape(-1).cpu().long()
    if len(labels) > 0 and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f'Expected `gt_label` to hold numbers in 0..{num_classes - 1}, but got '
            f'{labels.tolist()}.'
        )
    return label_to_onehot(labels, num_classes).clamp(max=1)


def stack_scores(results: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack what :func:`read_scores` gave for every sample.

    Returns:
        tuple[Tensor, Tensor]: Scores and targets, each ``(N, num_classes)``.

    Raises:
        ValueError: If there are no results, or the numbers of classes differ between samples.
    """
    if len(results) == 0:
        raise ValueError('Expected at least one sample to evaluate, but got none.')
    num_classes = {len(score) for score, _ in results}
    if len(num_classes) > 1:
        raise ValueError(
            f'Expected `pred_score` of one length in all samples, but got {sorted(num_classes)}.'
        )
    scores, targets = zip(*results)
    return torch.stack(scores), torch.stack(targets)


def class_names(dataset_meta: dict | None, num_classes: int) -> list[str]:
    """Names of the classes as the dataset gives them, or their indices."""
    names = (dataset_meta or {}).get('classes')
    if names is None or len(names) != num_classes:
        return [str(index) for index in range(num_classes)]
    return [str(name) for name in names]


def in_test_loop() -> bool:
    """Whether a Runner is testing (its RuntimeInfoHook says so), and tables are welcome."""
    return MessageHub.get_current_instance().get_info('loop_stage') == 'test'
