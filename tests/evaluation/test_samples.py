import pytest
import torch
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation.samples import class_names, read_scores, stack_scores


def test_targets_from_scores_and_from_labels():
    by_score = DataSample().set_pred_score([0.1, 0.2, 0.3]).set_gt_score([1.0, -1.0, 0.0])
    assert read_scores(by_score)[1].tolist() == [1, -1, 0]
    for label in ([0, 2], [2, 0, 2]):
        by_label = DataSample().set_pred_score([0.1, 0.2, 0.3]).set_gt_label(label)
        assert read_scores(by_label.to_dict())[1].tolist() == [1, 0, 1]
    none = dict(pred_score=torch.rand(3), gt_label=[])
    assert read_scores(none)[1].tolist() == [0, 0, 0]


def test_results_do_not_hold_the_batch():
    batch = torch.rand(64, 5, requires_grad=True)
    for result in read_scores(dict(pred_score=batch[3], gt_score=torch.zeros(64, 5)[3])):
        assert len(result) == 5
        assert result.untyped_storage().nbytes() == 5 * result.element_size()
        assert not result.requires_grad


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        (dict(gt_label=[0]), 'with `pred_score`, but got one without'),
        (dict(pred_score=torch.rand(3)), '`gt_score` or `gt_label`, but got one with neither'),
        (dict(pred_score=torch.rand(3), gt_score=torch.zeros(4)), '`gt_score` .* 3, but got 4'),
        (dict(pred_score=torch.rand(3), gt_label=[3]), r'`gt_label` .* 0..2, but got \[3\]'),
        (dict(pred_score=torch.rand(3), gt_label=[1, -1]), r'`gt_label` .* but got \[1, -1\]'),
    ],
)
def test_samples_that_do_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        read_scores(fields)


def test_stack():
    with pytest.raises(ValueError, match='at least one sample'):
        stack_scores([])
    with pytest.raises(ValueError, match=r'of one length in all samples, but got \[2, 3\]'):
        stack_scores([(torch.rand(3), torch.zeros(3)), (torch.rand(2), torch.zeros(2))])
    scores, targets = stack_scores([(torch.rand(3), torch.zeros(3))] * 2)
    assert scores.shape == targets.shape == (2, 3)


def test_class_names():
    assert class_names(None, 2) == class_names(dict(classes=['a']), 2) == ['0', '1']
    assert class_names(dict(classes=('a', 'b')), 2) == ['a', 'b']
