import pytest
import torch
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation.samples import class_names, read_batch


def read(*samples):
    scores, targets = read_batch(samples)
    assert scores.shape == targets.shape
    assert targets.dtype == torch.int8
    return targets.tolist()


def test_targets_from_scores_and_from_labels():
    by_score = DataSample().set_pred_score([0.1, 0.2, 0.3]).set_gt_score([1.0, -1.0, 0.0])
    assert read(by_score, by_score.to_dict()) == [[1, -1, 0]] * 2
    for label in ([0, 2], [2, 0, 2]):
        by_label = DataSample().set_pred_score([0.1, 0.2, 0.3]).set_gt_label(label)
        assert read(by_label.to_dict()) == [[1, 0, 1]]
    assert read(dict(pred_score=torch.rand(3), gt_label=[])) == [[0, 0, 0]]


def test_what_is_read_does_not_hold_the_batch():
    batch = torch.rand(64, 5, requires_grad=True)
    sample = dict(pred_score=batch[3], gt_score=torch.zeros(64, 5)[3])
    for result in read_batch([sample, sample]):
        assert result.shape == (2, 5)
        assert result.untyped_storage().nbytes() == 10 * result.element_size()
        assert not result.requires_grad


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(gt_label=[0]), 'with `pred_score`, but got one without'),
        (dict(pred_score=torch.rand(3)), '`gt_score` or `gt_label`, but got one with neither'),
        (dict(pred_score=torch.rand(3), gt_score=torch.zeros(4)), '`gt_score` .* 3, but got 4'),
        (dict(pred_score=torch.rand(3), gt_label=[3]), r'`gt_label` .* 0..2, but got \[3\]'),
        (dict(pred_score=torch.rand(3), gt_label=[1, -1]), r'`gt_label` .* but got \[1, -1\]'),
        (dict(pred_score=torch.rand(2), gt_label=[1]), r'of one length .* got \[2, 3\]'),
        (
            dict(pred_score=torch.full((3,), torch.nan), gt_label=[1]),
            'no NaN, .* sample 8, class 0',
        ),
        (
            dict(pred_score=torch.rand(3), gt_score=torch.full((3,), 0.5)),
            '0.5 for sample 8, class 0',
        ),
    ],
)
def test_samples_that_do_not_fit(fields, message):
    fits = dict(pred_score=torch.rand(3), gt_label=[])
    with pytest.raises(ValueError, match=message):
        read_batch([fits, fields], first=7)


def test_class_names():
    assert class_names(None, 2) == class_names(dict(classes=['a']), 2) == ['0', '1']
    assert class_names(dict(classes=('a', 'b')), 2) == ['a', 'b']
