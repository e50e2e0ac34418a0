import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from mhc_plugin.apis import test as run_test
from mhc_plugin.apis.test import metrics_table


@METRICS.register_module()
class CountMaps(BaseMetric):
    """How many samples came with maps of the size that is expected, and their labels."""

    default_prefix = 'count'
    labels: list = []

    def process(self, data_batch, data_samples):
        self.results.extend(
            (
                sample.get('pred_cam') is not None,
                (sample['pred_score'] >= 0.5).nonzero()[:, 0].tolist(),
                sample['pred_label'].tolist(),
            )
            for sample in data_samples
        )

    def compute_metrics(self, results):
        with_maps, by_score, labels = zip(*results)
        return dict(maps=sum(with_maps), right_labels=by_score == labels)


@pytest.fixture
def cfg(tiny_cfg):
    tiny_cfg.test_evaluator = [dict(type='CountMaps')]
    return tiny_cfg


@pytest.mark.parametrize(('maps', 'count'), [(None, 0), ('inherent', 12), ('GradCAM', 12)])
def test_metrics_get_maps_on_request(cfg, tiny_checkpoint, maps, count):
    assert run_test(cfg, tiny_checkpoint, maps=maps)['count/maps'] == count


def test_cached_test_loop_gets_maps_too(cfg, tiny_checkpoint, tmp_path):
    cfg.test_cfg = dict(type='FeatureCacheTestLoop', cache=dict(cache_dir=str(tmp_path / 'cache')))
    assert run_test(cfg, tiny_checkpoint, maps='inherent')['count/maps'] == 12


def test_labels_are_set_anew_under_test_time_augmentation(cfg, tiny_checkpoint):
    assert run_test(cfg, tiny_checkpoint, tta=True)['count/right_labels']


def test_scores_that_are_nan_are_not_dumped(cfg, tiny_checkpoint, tmp_path):
    content = torch.load(tiny_checkpoint)
    content['state_dict']['head.fc.weight'].fill_(float('nan'))
    torch.save(content, tiny_checkpoint)
    with pytest.raises(ValueError, match=r'`scores` to hold no NaN, .* sample 0, class 0'):
        run_test(cfg, tiny_checkpoint, out=tmp_path / 'scores.pkl')
    assert not (tmp_path / 'scores.pkl').exists()


def test_maps_and_views_exclude_one_another(cfg, tiny_checkpoint):
    with pytest.raises(ValueError, match='one of `tta` and `maps`'):
        run_test(cfg, tiny_checkpoint, tta=True, maps='inherent')


METRICS = {
    'multi-label/mAP': 91.234,
    'multi-label/num_classes': 2,
    'multi-label/ap_classwise': [90.0, 92.468],
    'multi-label/positives_classwise': [3, 4],
}


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_scores_and_classes():
    text = rows(metrics_table(METRICS, ['cat', 'dog']))
    assert ['multi-label/mAP', '91.23'] in text
    assert ['multi-label/num_classes', '2'] in text
    assert ['class', 'ap', 'positives'] in text
    assert ['cat', '90.00', '3'] in text
    assert ['dog', '92.47', '4'] in text


def test_classes_without_names_are_numbered():
    assert ['1', '92.47', '4'] in rows(metrics_table(METRICS))
    assert ['1', '92.47', '4'] in rows(metrics_table(METRICS, ['too', 'many', 'names']))


def test_no_second_table_without_lists():
    assert 'class' not in metrics_table({'a': 1.0})


def test_nothing_is_cut_off():
    name = 'multi-label/' + 'a' * 90
    assert name in metrics_table({name: 1.0}).replace('\n', '')
