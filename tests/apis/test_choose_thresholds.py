import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmpretrain.structures import DataSample
from sklearn.metrics import f1_score

from mhc_plugin.apis import MultiLabelInferencer
from mhc_plugin.apis.test import choose_thresholds, store_thresholds
from mhc_plugin.datasets.images import dataset_with_test_pipeline


def meta_of(checkpoint):
    return torch.load(checkpoint, map_location='cpu')['meta']['dataset_meta']


def test_metric_gives_thresholds_and_their_f1():
    from mhc_plugin.evaluation import BestF1Thresholds

    evaluator = Evaluator(BestF1Thresholds())
    scores = [[0.9, 0.2, 0.6], [0.6, 0.1, 0.9], [0.3, 0.4, 0.5]]
    targets = [[1.0, 0.0, -1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    evaluator.process(
        [DataSample().set_pred_score(s).set_gt_score(t) for s, t in zip(scores, targets)]
    )
    metrics = evaluator.evaluate(3)
    assert metrics['multi-label/threshold_classwise'] == pytest.approx([0.45, 0.5, 0.7])
    assert metrics['multi-label/best-f1_classwise'] == [100, 0, 100]


def test_chosen_on_validation_data_and_used_by_the_inferencer(tiny_cfg, tiny_checkpoint):
    chosen = choose_thresholds(tiny_cfg, tiny_checkpoint)
    assert meta_of(tiny_checkpoint)['thresholds'] == chosen
    inferencer = MultiLabelInferencer(tiny_cfg, tiny_checkpoint)
    assert inferencer.thr == chosen
    dataset = dataset_with_test_pipeline(tiny_cfg, 'val')
    samples = [dataset[index] for index in range(len(dataset))]
    with torch.no_grad():
        images = torch.stack([sample['inputs'] for sample in samples])
        scores = inferencer.model(
            inferencer.model.data_preprocessor(dict(inputs=images))['inputs']
        ).sigmoid()
    targets = torch.stack([sample['data_samples'].gt_score for sample in samples])
    for c in range(10):
        reached = f1_score(targets[:, c], scores[:, c] >= chosen[c])
        best = max(f1_score(targets[:, c], scores[:, c] >= thr) for thr in scores[:, c])
        assert reached == pytest.approx(best)


def test_everything_else_in_the_checkpoint_stays(tiny_checkpoint):
    before = torch.load(tiny_checkpoint)
    store_thresholds(tiny_checkpoint, np.linspace(0, 1, 10))
    after = torch.load(tiny_checkpoint)
    assert after['meta']['dataset_meta'].pop('thresholds') == pytest.approx(
        np.linspace(0, 1, 10).tolist()
    )
    assert after['meta'] == before['meta']
    assert all(
        torch.equal(value, before['state_dict'][name])
        for name, value in after['state_dict'].items()
    )
    assert list(tiny_checkpoint.parent.glob('*.tmp')) == []


def test_interrupted_writing_leaves_the_checkpoint_as_it_was(tiny_checkpoint, monkeypatch):
    before = tiny_checkpoint.read_bytes()

    def fail(content, path):
        path.write_bytes(b'half of it')
        raise OSError('disk full')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='disk full'):
        store_thresholds(tiny_checkpoint, [0.5] * 10)
    assert tiny_checkpoint.read_bytes() == before
    assert list(tiny_checkpoint.parent.glob('*.tmp')) == []


def test_thresholds_fit_the_classes(tiny_checkpoint):
    with pytest.raises(ValueError, match=r'Expected 10 thresholds .* but got 9'):
        store_thresholds(tiny_checkpoint, [0.5] * 9)


def test_validation_data_and_a_file_are_needed(tiny_cfg, tiny_checkpoint):
    with pytest.raises(FileNotFoundError, match=r'no file nowhere\.pth to store'):
        choose_thresholds(tiny_cfg, 'nowhere.pth')
    tiny_cfg.val_dataloader = None
    with pytest.raises(ValueError, match='`val_dataloader` to choose thresholds on'):
        choose_thresholds(tiny_cfg, tiny_checkpoint)


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        (dict(), True),
        # The same images, however they are wrapped and prepared.
        (dict(pipeline=[dict(type='ComposeTiles'), dict(type='PackInputs')]), True),
        (dict(seed=1), False),
    ],
)
def test_choosing_on_test_images_is_said_aloud(
    tiny_cfg, tiny_checkpoint, monkeypatch, change, said
):
    warnings = []
    monkeypatch.setattr(
        MMLogger, 'warning', lambda self, text, *args, **kwargs: warnings.append(text)
    )
    tiny_cfg.val_dataloader.dataset.update(change)
    if 'pipeline' in change:
        tiny_cfg.val_dataloader.dataset = dict(
            type='RepeatDataset', times=1, dataset=tiny_cfg.val_dataloader.dataset
        )
    choose_thresholds(tiny_cfg, tiny_checkpoint)
    assert any('CHOSEN ON THE TEST IMAGES' in str(text) for text in warnings) == said
