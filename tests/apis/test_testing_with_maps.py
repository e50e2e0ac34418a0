import pytest
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from mhc_plugin.apis import test as run_test


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
    cfg.test_cfg = dict(type='FeatureCacheTestLoop', cache_dir=str(tmp_path / 'cache'))
    assert run_test(cfg, tiny_checkpoint, maps='inherent')['count/maps'] == 12


def test_labels_are_set_anew_under_test_time_augmentation(cfg, tiny_checkpoint):
    assert run_test(cfg, tiny_checkpoint, tta=True)['count/right_labels']


def test_maps_and_views_exclude_one_another(cfg, tiny_checkpoint):
    with pytest.raises(ValueError, match='one of `tta` and `maps`'):
        run_test(cfg, tiny_checkpoint, tta=True, maps='inherent')
