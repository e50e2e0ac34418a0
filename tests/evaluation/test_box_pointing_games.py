import math

import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MessageHub
from mmpretrain.registry import METRICS
from mmpretrain.structures import DataSample

from mhc_plugin.evaluation import EnergyPointingGame, PointingGame

GAMES = ['EnergyPointingGame', 'PointingGame']


def make_sample(pred_cam, boxes, labels, difficult=None, img_shape=(4, 4)):
    sample = DataSample(metainfo=dict(img_shape=img_shape))
    sample.set_pred_score(torch.rand(len(pred_cam)))
    sample.gt_bboxes = torch.tensor(boxes).reshape(-1, 4)
    sample.gt_bbox_labels = torch.tensor(labels, dtype=torch.long)
    if difficult is not None:
        sample.gt_bbox_difficult = torch.tensor(difficult)
    sample.pred_cam = pred_cam
    return sample


def make_samples():
    maps = torch.zeros(4, 4, 4)
    maps[0, 0, 0], maps[0, 3, 3], maps[0, 3, 0] = 6.0, 3.0, 1.0
    maps[1] = 0.2
    maps[3, 0, 0] = 1.0  # no box: not asked
    first = make_sample(
        maps,
        # Class 0: 1/8 of the area, and a difficult box at the bottom right of 1/16.
        # Class 1: two boxes that overlap, 1/2 in all. Class 2: 1/4, its map is empty.
        [
            [0.0, 0.0, 0.5, 0.25],
            [0.75, 0.75, 1.0, 1.0],
            [0.0, 0.0, 0.5, 0.75],
            [0.0, 0.25, 0.5, 1.0],
            [0.0, 0.0, 0.5, 0.5],
        ],
        [0, 0, 1, 1, 2],
        [False, True, False, False, False],
    )
    maps = torch.zeros(4, 4, 4)
    maps[0, 3, 0], maps[0, 0, 0] = 3.0, 1.0
    second = make_sample(
        maps, [[0.0, 0.0, 0.25, 0.25], [0.0, 0.0, 1.0, 1.0]], [0, 3], [False, True]
    )
    return [first, second]


def evaluate(game, samples, dataset_meta=None, **kwargs):
    evaluator = Evaluator(METRICS.build(dict(type=game, **kwargs)))
    evaluator.dataset_meta = dataset_meta
    evaluator.process(samples)
    result = evaluator.evaluate(len(samples))
    return {key.removeprefix('multi-label/'): value for key, value in result.items()}


def test_energy_by_hand():
    # Class 0: 0.6 of 1/8; class 1: 1/2 of 1/2; class 2: empty, 1/4; then class 0: 1/4 of 1/16.
    assert evaluate('EnergyPointingGame', make_samples()) == pytest.approx(
        dict(
            energy_pg=100 * 1.35 / 4,
            energy_pg_chance=100 * (15 / 16) / 4,
            energy_pg_q25=18.75,
            energy_pg_median=37.5,
            energy_pg_q75=52.5,
            energy_pg_ratio=(4.8 + 1 + 0 + 4) / 4,
            energy_pg_num_maps=4,
            energy_pg_num_empty=1,
        )
    )


def test_pointing_by_hand():
    assert evaluate('PointingGame', make_samples()) == pytest.approx(
        dict(
            pointing_game=100 * (1 + 0.5 + 0 + 0) / 4,
            pointing_game_chance=100 * (15 / 16) / 4,
            pointing_game_ratio=(8 + 1) / 4,
            pointing_game_num_maps=4,
            pointing_game_num_empty=1,
        )
    )


def test_difficult_boxes_by_choice():
    result = evaluate('EnergyPointingGame', make_samples(), use_difficult=True, per_class=True)
    # Class 0: 0.9 of 3/16 and 1/4 of 1/16; class 3: empty, the whole image.
    assert result['energy_pg_num_maps'] == 5
    assert result['energy_pg_num_empty'] == 2
    assert result['energy_pg_classwise'] == pytest.approx([100 * 1.15 / 2, 50, 0, 0])
    assert result['energy_pg_chance_classwise'] == pytest.approx([100 * 4 / 32, 50, 25, 100])
    unmarked = make_samples()
    for sample in unmarked:
        del sample.gt_bbox_difficult
    assert evaluate('EnergyPointingGame', unmarked, per_class=True) == result


@pytest.mark.parametrize('game', GAMES)
def test_classes_without_boxes_are_nan_in_lists(game):
    result = evaluate(game, make_samples(), per_class=True)
    lists = [value for key, value in result.items() if key.endswith('classwise')]
    assert len(lists) == 2
    for values in lists:
        assert [math.isnan(value) for value in values] == [False, False, False, True]


@pytest.mark.parametrize('game', GAMES)
def test_uniform_maps_are_at_chance_at_any_size(game):
    sample = make_sample(
        torch.full((2, 7, 7), 0.3), [[0.1, 0.2, 0.4, 0.9], [0.3, 0.0, 0.6, 1.0]], [1, 1]
    )
    for size in ((224, 224), (50, 30)):
        result = evaluate(game, [sample], size=size)
        name = next(iter(result))
        assert result[name] == pytest.approx(result[f'{name}_chance'])
        assert result[f'{name}_ratio'] == pytest.approx(1)
    assert evaluate(game, [sample], size=(200, 200))[name] == pytest.approx(
        100 * (0.3 * 0.7 + 0.3 - 0.1 * 0.7), rel=1e-5
    )


@pytest.mark.parametrize('game', GAMES)
def test_images_without_boxes_and_boxes_cut_to_nothing_do_not_count(game):
    others = [
        make_sample(torch.ones(4, 4, 4), [], []),
        make_sample(torch.ones(4, 4, 4), [[1.0, 0.0, 1.0, 0.5]], [2]),
    ]
    assert evaluate(game, others + make_samples()) == pytest.approx(evaluate(game, make_samples()))
    alone = evaluate(game, others)
    assert math.isnan(next(iter(alone.values())))


def test_maps_are_not_kept():
    metric = EnergyPointingGame(size=(64, 64))
    metric.process(None, make_samples())
    kept = [
        value
        for result in metric.results
        for value in result.values()
        if isinstance(value, torch.Tensor)
    ]
    assert sum(value.untyped_storage().nbytes() for value in kept) < 1000


def test_dicts_do():
    dicts = [sample.to_dict() for sample in make_samples()]
    for game in GAMES:
        assert evaluate(game, dicts) == evaluate(game, make_samples())


def test_table_in_a_test_loop(log):
    MessageHub.get_current_instance().update_info('loop_stage', 'test')
    evaluate('PointingGame', make_samples(), dict(classes=['cat', 'dog', 'cow', 'hen']))
    assert 'pointing_game per class' in log()
    assert 'hen' in log()


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        (dict(gt_bboxes=None), 'with `gt_bboxes` and `gt_bbox_labels`, but got one without'),
        (dict(gt_bbox_labels=None), 'with `gt_bboxes` and `gt_bbox_labels`, but got one without'),
        (dict(gt_bbox_labels=[0]), 'one label per box, 5, but got 1'),
        (dict(gt_bbox_labels=[0, 1, 2, 3, 4]), r'`gt_bbox_labels` to hold numbers in 0..3'),
        (dict(pred_cam=-torch.ones(4, 4, 4)), '`maps` to be non-negative'),
    ],
)
def test_samples_that_do_not_fit(changed, message):
    sample = make_samples()[0].to_dict() | changed
    with pytest.raises(ValueError, match=message):
        EnergyPointingGame().process(None, [sample])


def test_wrong_size_and_no_samples():
    with pytest.raises(ValueError, match='`size` to be'):
        PointingGame(size=(0, 1))
    with pytest.raises(ValueError, match='at least one sample'):
        PointingGame().evaluate(0)
