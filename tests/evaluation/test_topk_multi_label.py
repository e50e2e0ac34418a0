import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample
from sklearn.metrics import f1_score, hamming_loss, precision_score, recall_score

from mhc_plugin.evaluation import TopKMultiLabelMetric

ITEMS = ['accuracy', 'precision', 'recall', 'f1', 'hamming_distance']


def make_samples(seed=0, num_samples=30, num_classes=6, low=0):
    rng = torch.Generator().manual_seed(seed)
    scores = torch.rand(num_samples, num_classes, generator=rng)
    target = torch.randint(low, 2, (num_samples, num_classes), generator=rng).float()
    samples = [DataSample().set_pred_score(s).set_gt_score(t) for s, t in zip(scores, target)]
    return samples, scores, target


def evaluate(samples, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='TopKMultiLabelMetric', **kwargs)))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def test_names_and_order_of_results():
    samples, *_ = make_samples()
    result = evaluate(samples, topk=(1, 3))
    assert list(result) == [f'multi-label/{item}_top{k}' for k in (1, 3) for item in ITEMS]
    assert all(type(value) is float for value in result.values())
    result = evaluate(samples, topk=2, average='micro', items=['f1'])
    assert list(result) == ['multi-label/f1_top2_micro']
    result = evaluate(samples, topk=2, average=None, items=['f1', 'recall'], prefix='own')
    assert list(result) == ['own/f1_top2_classwise', 'own/recall_top2_classwise']
    assert all(type(value) is float for values in result.values() for value in values)


@pytest.mark.parametrize('average', ['macro', 'micro', None])
def test_percent_as_scikit_learn(average):
    samples, scores, target = make_samples()
    predicted = np.zeros(scores.shape)
    np.put_along_axis(predicted, scores.topk(2).indices.numpy(), 1, axis=1)
    suffix = {'macro': '', 'micro': '_micro', None: '_classwise'}[average]
    result = evaluate(samples, topk=2, average=average)
    for item, function in dict(precision=precision_score, recall=recall_score, f1=f1_score).items():
        expected = function(target, predicted, average=average, zero_division=0)
        assert result[f'multi-label/{item}_top2{suffix}'] == pytest.approx(100 * expected, abs=1e-4)
    wrong = (
        (predicted != target.numpy()).mean(0)
        if average is None
        else hamming_loss(target, predicted)
    )
    assert result[f'multi-label/hamming_distance_top2{suffix}'] == pytest.approx(100 * wrong)
    assert result[f'multi-label/accuracy_top2{suffix}'] == pytest.approx(100 - 100 * wrong)


def test_macro_micro_and_classwise_stand_side_by_side():
    samples, *_ = make_samples()
    evaluator = Evaluator(
        [TopKMultiLabelMetric(topk=1, average=average) for average in ('macro', 'micro', None)]
    )
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    assert len(result) == 15
    assert result['multi-label/precision_top1'] == pytest.approx(
        np.mean(result['multi-label/precision_top1_classwise'])
    )


def test_samples_as_dicts_and_with_labels_only():
    samples, _, target = make_samples()
    expected = evaluate(samples, topk=2)
    assert evaluate([sample.to_dict() for sample in samples], topk=2) == expected
    labelled = [
        DataSample().set_pred_score(sample.pred_score).set_gt_label(truth.nonzero().squeeze(1))
        for sample, truth in zip(samples, target)
    ]
    assert evaluate(labelled, topk=2) == expected
    metric = TopKMultiLabelMetric(topk=2)
    metric.process(None, samples)
    assert metric.evaluate(len(samples)) == expected


def test_classes_without_known_targets_are_left_out_and_counted(log):
    samples, _, target = make_samples(low=-1)
    target[:, 4] = -1
    evaluator = Evaluator(
        [TopKMultiLabelMetric(topk=2, average=average) for average in ('macro', None)]
    )
    evaluator.dataset_meta = dict(classes=list('abcdef'))
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    classwise = np.array(result['multi-label/recall_top2_classwise'])
    assert np.isnan(classwise).tolist() == [False] * 4 + [True, False]
    assert result['multi-label/recall_top2'] == pytest.approx(np.nanmean(classwise))
    assert 'macro averages are over 5 of 6 classes; without a known target: e.' in log()


def test_a_second_evaluation_starts_anew():
    metric = TopKMultiLabelMetric(topk=1)
    samples, *_ = make_samples()
    for _ in range(2):
        metric.process(None, samples)
        first = metric.evaluate(len(samples))
    assert first == evaluate(samples, topk=1)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(topk=0), '`topk` to be an integer of 1 or more'),
        (dict(topk=1, items=['f2']), "`items` to be one of .*, but got 'f2'"),
        (dict(topk=1, average='weighted'), "`average` to be one of .*, but got 'weighted'"),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        TopKMultiLabelMetric(**kwargs)


def test_too_large_a_k_is_noticed_at_the_first_batch():
    metric = METRICS.build(dict(type='TopKMultiLabelMetric', topk=(1, 7)))
    with pytest.raises(ValueError, match=r'`topk` to be in 1..6 \(num_classes\), but got 7'):
        metric.process(None, make_samples()[0])


def test_nan_scores_and_no_samples():
    with pytest.raises(ValueError, match='no NaN'):
        evaluate([DataSample().set_pred_score([0.1, float('nan')]).set_gt_label([0])], topk=1)
    with pytest.raises(ValueError, match='at least one sample'):
        TopKMultiLabelMetric(topk=1).evaluate(0)
