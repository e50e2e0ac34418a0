"""Metrics that keep few bytes give what all samples at once would give."""

import pickle

import pytest
import torch
from mmengine.evaluator import Evaluator

from mhc_plugin.evaluation import BestF1Thresholds, MultiLabelMeanAP, TopKMultiLabelMetric, running
from mhc_plugin.evaluation.running import KnownScores, pairs_of_classes
from mhc_plugin.functional.average_precision import average_precision
from mhc_plugin.functional.thresholds import best_f1_thresholds
from mhc_plugin.functional.topk import topk_scores


def make(num_samples=50, num_classes=7, known=0.5, seed=0, dtype=torch.float32):
    rng = torch.Generator().manual_seed(seed)
    scores = (torch.rand(num_samples, num_classes, generator=rng) * 20).round() / 20
    target = (torch.rand(num_samples, num_classes, generator=rng) < 0.3).float()
    target[torch.rand(num_samples, num_classes, generator=rng) >= known] = -1
    target[:, -1] = -1  # never known
    return scores.to(dtype), target


def evaluate(scores, target, batch_size=4, size=None):
    evaluator = Evaluator(
        [
            TopKMultiLabelMetric(topk=(1, 3), average=None),
            MultiLabelMeanAP(average=None),
            MultiLabelMeanAP(eval_mode='11points'),
            BestF1Thresholds(),
        ]
    )
    samples = [dict(pred_score=s, gt_score=t) for s, t in zip(scores, target)]
    for start in range(0, len(samples), batch_size):
        evaluator.process(samples[start : start + batch_size])
    return evaluator.evaluate(len(samples) if size is None else size)


def expected(scores, target):
    counts = topk_scores(scores, target, (1, 3), None)
    best = best_f1_thresholds(scores, target)
    return {
        **{
            f'multi-label/{item}_top{k}_classwise': (100 * value).tolist()
            for k in (1, 3)
            for item, value in counts[k].items()
        },
        'multi-label/mAP_classwise': (100 * average_precision(scores, target)).tolist(),
        'multi-label/mAP_positives_classwise': (target == 1).sum(0).tolist(),
        'multi-label/mAP_known_classwise': (target != -1).sum(0).tolist(),
        'multi-label/mAP_voc07': (100 * average_precision(scores, target, '11points')).nanmean(),
        'multi-label/threshold_classwise': best.thresholds.tolist(),
        'multi-label/best-f1_classwise': (100 * best.f1).tolist(),
    }


@pytest.mark.parametrize('block', [1, 10, 64, 2**22])
@pytest.mark.parametrize('known', [0.05, 0.5, 1.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_blocks_of_any_size_give_what_all_at_once_gives(monkeypatch, block, known, dtype):
    monkeypatch.setattr(running, 'BLOCK', block)
    scores, target = make(known=known, dtype=dtype)
    found = evaluate(scores, target)
    for name, value in expected(scores, target).items():
        assert found[name] == pytest.approx(value, rel=0, abs=0, nan_ok=True), name


@pytest.mark.parametrize('block', [1, 2**22])
@pytest.mark.parametrize(('number', 'size'), [(50, 49), (49, 48), (48, 45)])
def test_samples_that_fill_up_the_last_batch_do_not_count(monkeypatch, block, number, size):
    monkeypatch.setattr(running, 'BLOCK', block)
    scores, target = make(number)
    found = evaluate(scores, target, size=size)
    for name, value in expected(scores[:size], target[:size]).items():
        assert found[name] == pytest.approx(value, rel=0, abs=0, nan_ok=True), name


def test_more_than_a_batch_too_much_is_no_share_of_a_process():
    scores, target = make()
    with pytest.raises(ValueError, match=r'Expected 20 samples for 1 processes.* got 50'):
        evaluate(scores, target, size=20)


def test_a_failed_evaluation_leaves_nothing_behind():
    scores, target = make()
    metric = MultiLabelMeanAP()
    samples = [dict(pred_score=s, gt_score=t) for s, t in zip(scores, target)]
    metric.process(None, samples)
    with pytest.raises(ValueError, match='to hold no NaN, but got one for sample 50'):
        metric.process(None, [dict(pred_score=torch.full((7,), torch.nan), gt_score=target[0])])
    result = metric.evaluate(50)
    metric.process(None, samples)
    assert metric.evaluate(50) == result


def test_lengths_of_batches_have_to_fit():
    scores, target = make()
    metric = MultiLabelMeanAP()
    for width in (7, 6):
        samples = [dict(pred_score=s[:width], gt_score=t[:width]) for s, t in zip(scores, target)]
        if width == 6:
            with pytest.raises(ValueError, match=r'of one length in all samples, but got \[6, 7\]'):
                metric.process(None, samples)
        else:
            metric.process(None, samples)


def test_nothing_is_kept_of_unknown_pairs(monkeypatch):
    monkeypatch.setattr(running, 'BLOCK', 1000)
    scores, target = make(500, 200, known=0.01)
    metric, counts = MultiLabelMeanAP(), TopKMultiLabelMetric(topk=1)
    for start in range(0, 500, 10):
        samples = [
            dict(pred_score=s, gt_score=t)
            for s, t in zip(scores[start : start + 10], target[start : start + 10])
        ]
        metric.process(None, samples)
        counts.process(None, samples)
    waiting = sum(kept.numel() for kept, _ in metric._batches)
    assert waiting <= 1000 + 2000
    kept = pickle.dumps(metric._state)
    blocks = 500 * 200 // 1000
    assert len(kept) < 5 * (target != -1).sum() + 4 * 200 * blocks + 1000
    assert sum(kept.numel() for kept, _ in counts._batches) <= 3000
    assert sum(part.numel() for part in counts._state[1]) == 4 * 200


def test_pairs_of_processes_are_put_together():
    scores, target = make()
    parts = [KnownScores().add(scores[:20], target[:20]), KnownScores(), KnownScores()]
    parts[2].add(scores[20:], target[20:])
    both = list(pairs_of_classes(parts))
    assert len(both) == 7
    for c, (score, positive) in enumerate(both):
        known = target[:, c] != -1
        assert torch.equal(score, scores[known, c])
        assert torch.equal(positive, target[known, c] == 1)
