import math

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation import GridPointingGame

TOP_LEFT, TOP_RIGHT, BOTTOM_LEFT, BOTTOM_RIGHT = (0, 0), (0, 2), (2, 0), (2, 2)


def composite(cells, maps, scores, num_classes=5):
    """A sample whose map of class c holds the given masses: {c: {place: mass}}."""
    pred_cam = torch.zeros(num_classes, 4, 4)
    for label, masses in maps.items():
        for (top, left), mass in masses.items():
            pred_cam[label, top : top + 2, left : left + 2] = mass
    sample = DataSample(metainfo=dict(img_shape=(4, 4))).set_pred_score(scores)
    sample.set_gt_label(sorted({c for row in cells for c in row}))
    sample.gt_cells = torch.tensor(cells)
    sample.pred_cam = pred_cam
    return sample


def make_samples():
    everywhere = {TOP_LEFT: 1.0, TOP_RIGHT: 1.0, BOTTOM_LEFT: 1.0, BOTTOM_RIGHT: 1.0}
    sure = composite(
        [[0, 1], [2, 3]],
        {0: {TOP_LEFT: 5.0}, 1: {TOP_RIGHT: 3.0, BOTTOM_LEFT: 1.0}, 2: everywhere, 4: everywhere},
        [0.9, 0.5, 0.8, 0.7, 0.1],
    )
    unsure = composite(
        [[4, 3], [2, 1]],
        {4: {TOP_RIGHT: 2.0}, 3: {TOP_RIGHT: 2.0}, 2: everywhere, 1: everywhere},
        [0.9, 0.49, 0.8, 0.7, 0.9],
    )
    return [sure, unsure]


def evaluate(samples, dataset_meta=None, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type='GridPointingGame', **kwargs)))
    evaluator.dataset_meta = dataset_meta
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def strip(result):
    return {key.removeprefix('multi-label/'): value for key, value in result.items()}


def test_all_and_sure_composites_by_hand():
    # Own cells: 1, 3/4, 1/4, empty; and 0, 1, 1/4, 1/4 in the second, unsure one.
    assert strip(evaluate(make_samples())) == pytest.approx(
        dict(
            grid_pg=100 * 3.5 / 8,
            grid_pg_chance=25,
            grid_pg_q25=18.75,
            grid_pg_median=25,
            grid_pg_q75=81.25,
            grid_pg_num_maps=8,
            grid_pg_num_empty=1,
            grid_pg_sure=50,
            grid_pg_sure_chance=25,
            grid_pg_sure_q25=18.75,
            grid_pg_sure_median=50,
            grid_pg_sure_q75=81.25,
            grid_pg_sure_num_maps=4,
            grid_pg_sure_num_empty=1,
        )
    )


def test_matrix_and_lists_by_hand():
    result = strip(evaluate(make_samples(), per_class=True))
    nan = math.nan
    assert result['grid_pg_classwise'] == pytest.approx([100, 50, 25, 50, 0])
    assert result['grid_pg_chance_classwise'] == pytest.approx([25] * 5)
    # Row: whose map; column: in whose cell. 0 and 4 are never on one composite.
    expected = [
        [100, 0, 0, 0, nan],
        [0, 50, 25, 12.5, 25],
        [25, 25, 25, 25, 25],
        [0, 0, 0, 50, 0],
        [nan, 0, 0, 100, 0],
    ]
    for row, expected_row in zip(result['grid_pg_matrix'], expected):
        assert row == pytest.approx(expected_row, nan_ok=True)
    for row, expected_row in zip(result['grid_pg_chance_matrix'], expected):
        assert row == pytest.approx(
            [nan if math.isnan(value) else 25 for value in expected_row], nan_ok=True
        )
    assert result['grid_pg_sure_classwise'] == pytest.approx([100, 75, 25, 0, nan], nan_ok=True)
    assert result['grid_pg_sure_matrix'][1] == pytest.approx([0, 75, 25, 0, nan], nan_ok=True)


def test_uniform_maps_are_at_chance_at_any_size():
    sample = composite([[0, 1], [2, 3]], {}, [0.9] * 5)
    sample.pred_cam = torch.full((5, 7, 7), 0.3)
    for size in (None, (224, 224), (5, 9)):
        result = strip(evaluate([sample], size=size))
        assert result['grid_pg'] == pytest.approx(25)
        assert result['grid_pg_sure_q25'] == pytest.approx(25)


def test_without_sure_composites_their_figures_are_nan(log):
    result = strip(evaluate(make_samples(), sure_thr=1.0, per_class=True))
    assert 'grid_pg per class' in log()
    assert 'grid_pg_sure per class' not in log()
    assert math.isnan(result['grid_pg_sure'])
    assert math.isnan(result['grid_pg_sure_median'])
    assert result['grid_pg_sure_num_maps'] == 0


def test_dicts_and_lists_of_cells_do():
    dicts = [sample.to_dict() for sample in make_samples()]
    for sample in dicts:
        sample['gt_cells'] = sample['gt_cells'].tolist()
    assert evaluate(dicts) == evaluate(make_samples())


def test_maps_are_not_kept():
    metric = GridPointingGame(size=(64, 64))
    metric.process(None, make_samples())
    kept = [
        value
        for result in metric.results
        for value in result.values()
        if isinstance(value, torch.Tensor)
    ]
    assert sum(value.untyped_storage().nbytes() for value in kept) < 1000


def test_tables_in_a_test_loop(log):
    evaluate(make_samples())
    assert 'per class' not in log()
    MessageHub.get_current_instance().update_info('loop_stage', 'test')
    result = evaluate(make_samples(), dict(classes=['cat', 'dog', 'cow', 'hen', 'fox']))
    assert 'grid_pg per class' in log()
    assert 'fox' in log()
    assert not any(key.endswith(('classwise', 'matrix')) for key in result)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(size=7), '`size` to be'),
        (dict(sure_thr=1.5), r'`sure_thr` to be in 0..1, but got 1.5'),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        GridPointingGame(**kwargs)


@pytest.mark.parametrize('missing', ['gt_cells', 'pred_score'])
def test_samples_that_lack_a_field(missing):
    sample = make_samples()[0].to_dict()
    del sample[missing]
    with pytest.raises(ValueError, match='with `gt_cells` and `pred_score`, but got one without'):
        GridPointingGame().process(None, [sample])


def test_non_finite_maps_and_no_samples():
    sample = make_samples()[0]
    sample.pred_cam[4, 0, 0] = math.inf
    with pytest.raises(ValueError, match='`maps` to be finite'):
        evaluate([sample])
    with pytest.raises(ValueError, match='at least one sample'):
        GridPointingGame().evaluate(0)
