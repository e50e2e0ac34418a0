import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation import MapCorrelation


def make_sample(pred_cam, labels):
    sample = DataSample().set_pred_score(torch.rand(len(pred_cam))).set_gt_label(labels)
    sample.pred_cam = pred_cam
    return sample


def evaluate(samples, dataset_meta=None, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='MapCorrelation', **kwargs)))
    evaluator.dataset_meta = dataset_meta
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    return {key.removeprefix('multi-label/'): value for key, value in result.items()}


def test_by_hand():
    # 0 and 1 look at one place, 2 at all others; 3 is empty.
    maps = torch.tensor(
        [
            [[1.0, 0.0], [0.0, 0.0]],
            [[3.0, 1.0], [1.0, 1.0]],
            [[0.0, 1.0], [1.0, 1.0]],
            [[0.0, 0.0], [0.0, 0.0]],
        ]
    )
    samples = [make_sample(maps, [0, 1]), make_sample(maps, [0, 1, 2]), make_sample(maps, [2])]
    result = evaluate(samples, per_class=True)
    assert result == dict(
        # Pairs 01: 1, 02 and 12: -1, three with the empty map: 0.
        map_correlation=pytest.approx(-1 / 6),
        map_correlation_chance=0.0,
        # First image 1, second (1 - 1 - 1) / 3, the third has no pair.
        map_correlation_positive=pytest.approx((1 - 1 / 3) / 2),
        map_correlation_positive_chance=0.0,
        map_correlation_num_maps=12.0,
        map_correlation_num_empty=3.0,
        map_correlation_classwise=pytest.approx([0, 0, -2 / 3, 0]),
        map_correlation_chance_classwise=[0.0] * 4,
    )


def test_equals_numpy():
    maps = torch.rand(3, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    result = evaluate([make_sample(m, [1, 3, 4]) for m in maps])
    every, positive = [], []
    for m in maps:
        matrix = np.corrcoef(m.flatten(1))
        every.append(matrix[np.triu_indices(6, 1)].mean())
        positive.append(matrix[[1, 1, 3], [3, 4, 4]].mean())
    assert result['map_correlation'] == pytest.approx(np.mean(every))
    assert result['map_correlation_positive'] == pytest.approx(np.mean(positive))


def test_unrelated_maps_are_at_chance():
    maps = torch.rand(50, 4, 20, 20, generator=torch.Generator().manual_seed(0))
    result = evaluate([make_sample(m, [0, 1]) for m in maps])
    assert result['map_correlation'] == pytest.approx(0, abs=0.02)
    assert result['map_correlation_positive'] == pytest.approx(0, abs=0.02)


def test_without_two_positives_it_is_nan():
    result = evaluate([make_sample(torch.rand(3, 2, 2), []), make_sample(torch.rand(3, 2, 2), [1])])
    assert math.isnan(result['map_correlation_positive'])


def test_maps_are_not_kept():
    metric = MapCorrelation()
    metric.process(None, [make_sample(torch.rand(3, 64, 64), [0])])
    assert metric.results[0]['with_others'].untyped_storage().nbytes() == 3 * 8


def test_table_in_a_test_loop(log):
    MessageHub.get_current_instance().update_info('loop_stage', 'test')
    evaluate([make_sample(torch.rand(2, 2, 2), [0])], dict(classes=['cat', 'dog']))
    assert 'map_correlation per class' in log()
    assert 'dog' in log()


def test_errors():
    with pytest.raises(ValueError, match='two classes or more, but got 1'):
        evaluate([make_sample(torch.rand(1, 2, 2), [0])])
    with pytest.raises(ValueError, match='`gt_score` or `gt_label`'):
        MapCorrelation().process(None, [dict(pred_cam=torch.rand(2, 2, 2))])
    with pytest.raises(ValueError, match='at least one sample'):
        MapCorrelation().evaluate(0)
