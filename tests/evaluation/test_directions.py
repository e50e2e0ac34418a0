import math

import pytest
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmpretrain.registry import METRICS
from samples_of_all_metrics import make_evaluator, make_samples
from tiny_configs import tiny_cfg  # noqa: F401

from mhc_plugin.apis import train
from mhc_plugin.evaluation.directions import direction

LESS = ('hamming_distance', 'map_correlation')
NO_SCORE = ('_chance', '_num_maps', '_num_empty', '_num_classes')


def all_names():
    evaluator = make_evaluator()
    evaluator.process(make_samples())
    return list(evaluator.evaluate(len(make_samples())))


@pytest.mark.parametrize('prefix', ['multi-label', 'top/loss', ''])
def test_every_score_of_ours_has_its_direction(prefix):
    names = all_names()
    assert len(names) > 30
    for name in names:
        item = name.removeprefix('multi-label/')
        expected = 'less' if item.startswith(LESS) else 'greater'
        if item.endswith(NO_SCORE):
            expected = None
        name = f'{prefix}/{item}' if prefix else item
        assert direction(name) == expected, name
        if expected is not None:
            assert CheckpointHook(save_best=name).rules == [expected]
            assert EarlyStoppingHook(monitor=name).rule == expected


def test_rules_of_a_config_and_names_of_others_stay():
    name = 'multi-label/hamming_distance_top4'
    assert CheckpointHook(save_best=name, rule='greater').rules == ['greater']
    hook = CheckpointHook(save_best=['loss', name, 'accuracy/top1'])
    assert hook.rules == ['less', 'less', 'greater']
    assert direction('accuracy/top1') is direction('coco/bbox_mAP') is None
    assert CheckpointHook(save_best='auto').rules == [None]
    with pytest.raises(ValueError, match='Cannot infer the rule'):
        CheckpointHook(save_best='something')


@METRICS.register_module(force=True)
class Falling:
    """A metric whose Hamming distance falls from validation to validation, then rises."""

    prefix = 'multi-label'
    values = []

    def process(self, data_batch, data_samples):
        pass

    def evaluate(self, size):
        return {'multi-label/hamming_distance_top4': self.values.pop(0)}


@pytest.mark.parametrize('save_best', ['multi-label/hamming_distance_top4', 'auto'])
def test_the_best_checkpoint_of_a_run_is_the_one_with_the_least_distance(
    tiny_cfg,  # noqa: F811
    save_best,
):
    Falling.values = [30.0, 10.0, 20.0]
    tiny_cfg.train_cfg.max_epochs = 3
    tiny_cfg.val_evaluator = [dict(type='Falling')]
    tiny_cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best=save_best))
    result = train(tiny_cfg)
    assert result.best_checkpoint.name.endswith('epoch_2.pth')
    assert not math.isnan(result.metrics['multi-label/hamming_distance_top4'])
