"""What our metrics read from data samples."""

from collections.abc import Sequence

import torch
from mmengine.logging import MessageHub
from mmpretrain.structures import label_to_onehot
from torch import Tensor

from mhc_plugin.functional.checks import check_scores_and_target


def read_batch(data_samples: Sequence[dict], first: int = 0) -> tuple[Tensor, Tensor]:
    """Read scores and targets of a batch.

    Args:
        data_samples (Sequence[dict | DataSample]): With ``pred_score`` and either ``gt_score`` (1,
            0, -1 for unknown) or ``gt_label`` (indices of the positives; all others are negative).
        first (int): Number of the first sample, for sentences of errors. Defaults to 0.

    Returns:
        tuple[Tensor, Tensor]: Scores in their own dtype and targets in int8, each ``(N,
        num_classes)`` on the CPU and holding nothing of what they were read from.

    Raises:
        ValueError: If a field is missing, the lengths differ, a label is not a class, a score is
            NaN, or a target is none of 1, 0 and -1.
    """
    scores = [data_sample.get('pred_score') for data_sample in data_samples]
    if any(score is None for score in scores):
        raise ValueError(
            'Expected data samples with `pred_score`, but got one without. Is the '
            'head a multi-label one?'
        )
    lengths = {len(score) for score in scores}
    if len(lengths) > 1:
        raise ValueError(
            f'Expected `pred_score` of one length in all samples, but got {sorted(lengths)}.'
        )
    targets = [
        read_target(data_sample, len(score)) for data_sample, score in zip(data_samples, scores)
    ]
    scores, targets = torch.stack(scores).detach().cpu(), torch.stack(targets).cpu()
    check_scores_and_target(scores, targets, first)
    return scores, targets.to(torch.int8)


def read_target(data_sample: dict, num_classes: int) -> Tensor:
    """Read the target ``(num_classes,)`` of one sample, see :func:`read_batch`."""
    gt_score = data_sample.get('gt_score')
    if gt_score is not None:
        if len(gt_score) != num_classes:
            raise ValueError(
                f'Expected `gt_score` to have the length of `pred_score`, '
                f'{num_classes}, but got {len(gt_score)}.'
            )
        return gt_score.detach()

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


def class_names(dataset_meta: dict | None, num_classes: int) -> list[str]:
    """Names of the classes as the dataset gives them, or their indices."""
    names = (dataset_meta or {}).get('classes')
    if names is None or len(names) != num_classes:
        return [str(index) for index in range(num_classes)]
    return [str(name) for name in names]


def in_test_loop() -> bool:
    """Whether a Runner is testing (its RuntimeInfoHook says so), and tables are welcome."""
    return MessageHub.get_current_instance().get_info('loop_stage') == 'test'
