import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from sklearn.metrics import average_precision_score

from mhc_plugin.evaluation import MultiLabelMeanAP

TARGET = torch.tensor(
    [
        [1.0, 0.0, 0.0, -1.0],
        [1.0, 1.0, 0.0, -1.0],
        [0.0, -1.0, 0.0, -1.0],
        [0.0, 1.0, 0.0, 0.0],
        [1.0, 0.0, 0.0, 0.0],
    ]
)
SCORES = torch.tensor(
    [
        [0.9, 0.5, 0.1, 0.1],
        [0.7, 0.5, 0.2, 0.1],
        [0.7, 0.9, 0.3, 0.1],
        [0.7, 0.4, 0.4, 0.1],
        [0.1, 0.3, 0.5, 0.1],
    ]
)
CLASSES = ('cat', 'dog', '[b]cow', 'hen')


def make_samples():
    return [DataSample().set_pred_score(s).set_gt_score(t) for s, t in zip(SCORES, TARGET)]


def evaluate(samples, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='MultiLabelMeanAP', **kwargs)))
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def expected_ap():
    return [
        100 * average_precision_score(TARGET[known, c], SCORES[known, c])
        for c in (0, 1)
        for known in [TARGET[:, c] != -1]
    ]


def test_mean_over_classes_with_positives(log):
    result = evaluate(make_samples())
    assert result == {
        'multi-label/mAP': pytest.approx(np.mean(expected_ap()), abs=1e-6),
        'multi-label/mAP_num_classes': 2.0,
    }
    assert all(type(value) is float for value in result.values())
    assert 'is the mean over 2 of 4 classes; 2 without positives left out' in log()
    assert 'positives │' not in log()


def test_lists_and_table_per_class(log):
    result = evaluate(make_samples(), average=None)
    assert list(result) == [
        'multi-label/mAP_classwise',
        'multi-label/mAP_positives_classwise',
        'multi-label/mAP_known_classwise',
    ]
    assert result['multi-label/mAP_classwise'] == pytest.approx(
        [*expected_ap(), math.nan, math.nan], nan_ok=True
    )
    assert result['multi-label/mAP_positives_classwise'] == [3, 2, 0, 0]
    assert result['multi-label/mAP_known_classwise'] == [5, 4, 5, 2]

    rows = [
        [cell.strip() for cell in line.strip('│').split('│')]
        for line in log().splitlines()
        if line.startswith('│')
    ]
    first, second = (f'{value:.2f}' for value in expected_ap())
    assert rows == [
        ['cat', first, '3', '5'],
        ['dog', second, '2', '4'],
        ['[b]cow', '-', '0', '5'],
        ['hen', '-', '0', '2'],
    ]


def test_a_test_loop_always_shows_the_table(log):
    MessageHub.get_current_instance().update_info('loop_stage', 'test')
    evaluate(make_samples())
    assert '│ cat' in log()


def test_eleven_points():
    samples = [
        DataSample().set_pred_score([s]).set_gt_score([t])
        for s, t in zip((0.9, 0.8, 0.7, 0.6), (1.0, 0.0, 1.0, 0.0))
    ]
    expected = 100 * (6 + 5 * 2 / 3) / 11
    assert evaluate(samples, eval_mode='11points') == {
        'multi-label/mAP_voc07': pytest.approx(expected),
        'multi-label/mAP_voc07_num_classes': 1.0,
    }
    assert evaluate(samples, eval_mode='11points', average=None) == {
        'multi-label/mAP_voc07_classwise': pytest.approx([expected]),
        'multi-label/mAP_voc07_positives_classwise': [2],
        'multi-label/mAP_voc07_known_classwise': [4],
    }


def test_all_forms_stand_side_by_side():
    evaluator = Evaluator(
        [
            MultiLabelMeanAP(average=average, eval_mode=mode)
            for average in ('macro', None)
            for mode in ('area', '11points')
        ]
    )
    evaluator.process(make_samples())
    assert len(evaluator.evaluate(5)) == 10


def test_ties_do_not_depend_on_the_order_of_samples():
    samples = [DataSample().set_pred_score([0.5]).set_gt_score([t]) for t in (1.0, 0.0, 0.0)]
    for order in (samples, samples[::-1]):
        assert evaluate(order)['multi-label/mAP'] == pytest.approx(100 / 3)


def test_samples_with_labels_only():
    samples = [
        dict(pred_score=torch.tensor([0.9, 0.1]), gt_label=[0]),
        dict(pred_score=torch.tensor([0.8, 0.3]), gt_label=[]),
    ]
    assert evaluate(samples)['multi-label/mAP'] == 100
    assert evaluate(samples)['multi-label/mAP_num_classes'] == 1


def test_without_any_positive_it_is_nan_and_says_so(log):
    samples = [dict(pred_score=torch.rand(3), gt_score=torch.tensor([0.0, -1.0, 0.0]))]
    result = evaluate(samples)
    assert math.isnan(result['multi-label/mAP'])
    assert result['multi-label/mAP_num_classes'] == 0
    assert 'mAP is undefined: none of the 3 classes has a positive target' in log()


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(average='micro'), "`average` to be one of .*, but got 'micro'"),
        (dict(eval_mode='voc'), "`eval_mode` to be one of .*, but got 'voc'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MultiLabelMeanAP(**kwargs)
