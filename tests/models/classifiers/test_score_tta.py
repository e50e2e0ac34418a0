import pytest
import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn


def merged(head, *scores):
    module = nn.Module()
    module.head = MODELS.build(head)
    module.test_step = None
    model = MODELS.build(dict(type='MultiLabelScoreTTA', module=module))
    views = [
        [DataSample().set_pred_score(torch.tensor(score)).set_pred_label(torch.tensor([2]))]
        for score in scores
    ]
    return model.merge_preds(list(zip(*views)))[0]


@pytest.mark.parametrize(
    ('head', 'labels'),
    [
        (dict(type='MultiLabelClsHead'), [0]),
        (dict(type='MultiLabelClsHead', thr=0.25), [0, 1]),
        (dict(type='MultiLabelClsHead', topk=2), [0, 1]),
        (dict(type='LinearClsHead', num_classes=3, in_channels=4), [0]),
    ],
)
def test_labels_follow_the_merged_scores(head, labels):
    sample = merged(head, [0.9, 0.5, 0.3], [0.3, 0.1, 0.1])
    torch.testing.assert_close(sample.pred_score, torch.tensor([0.6, 0.3, 0.2]))
    assert sample.pred_label.tolist() == labels


def test_no_label_reaches_the_threshold():
    assert (
        merged(dict(type='MultiLabelClsHead'), [0.6, 0.0, 0.0], [0.0, 0.6, 0.0]).pred_label.tolist()
        == []
    )
