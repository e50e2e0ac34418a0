"""Heads set to their optimum: ordinary heads whose loss has no slope left."""

import re

import numpy as np
import pytest
import torch
from tiny_configs import tiny_cfg  # noqa: F401

from mhc_plugin.apis import train
from mhc_plugin.engine.loops.optimum_loop import row_targets
from mhc_plugin.features.store import FeatureStore
from mhc_plugin.utils.batch import Features

LINEAR = {
    'all': {},
    'max': dict(pool='max'),
    'normalized': dict(normalize='image'),
    'channels': dict(connection='channels'),
    'stages': dict(connection='stages', in_channels=(32, 64), head_stages=[0, 1, (0, 1), 1, 0] * 2),
    'groups': dict(connection='channels', head_groups=[[3, 1], [0, 2, 4], [5, 6, 7, 8, 9]]),
    'baseline': dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss')),
    'weighted': dict(
        loss=dict(
            type='PerHeadBCELoss',
            loss_weight=[0.5] * 5 + [2.0] * 5,
            pos_weight=[3.0] * 10,
            head_reduction='mean',
        )
    ),
}


@pytest.fixture
def cfg(tiny_cfg, tmp_path):  # noqa: F811
    tiny_cfg.val_cfg = tiny_cfg.val_dataloader = tiny_cfg.val_evaluator = None
    tiny_cfg.train_dataloader.dataset.length = 24
    tiny_cfg.work_dir = str(tmp_path / 'work')
    # Runs of one name within a second share a logger, and its file.
    tiny_cfg.experiment_name = tmp_path.name
    return tiny_cfg


def run(cfg, tmp_path, optimum=0.01, **cache):
    return train(
        cfg, optimum=optimum, feature_cache=dict(cache_dir=str(tmp_path / 'cache'), **cache)
    )


def stored(result):
    """Features, targets and the model of a run."""
    loop = result.runner.train_loop
    dataset = loop.dataloader.dataset
    rows = np.arange(dataset.reader.layout.num_rows)
    return (
        Features(dataset.reader.gather(rows)),
        row_targets(dataset, 10).float(),
        result.runner.model,
    )


@pytest.mark.parametrize('name', LINEAR)
def test_no_slope_is_left_in_loss_and_weight_decay(cfg, tmp_path, name):
    head = LINEAR[name]
    cfg.model.head.update(head)
    if name == 'stages':
        cfg.model.backbone.out_indices = (2, 3)
    if name == 'baseline':
        cfg.model.neck = dict(type='GlobalAveragePooling')
    decay = [0.001 * (c + 1) for c in range(10)]
    feats, targets, model = stored(run(cfg, tmp_path, decay, storage='fp32'))
    assert len(targets) == 24

    def slopes(zeroed):
        model.double().train()
        model.zero_grad()
        fc = model.head.fc
        logits = model.head(model.extract_feat(feats.to(torch.float64)))
        if zeroed:
            logits = logits - logits.detach()
        model.head.loss_module(logits, targets.double()).backward()
        per_class = fc.weight.grad.flatten(0, -2) + (
            0 if zeroed else row_decay(model.head, decay) * fc.weight.detach().flatten(0, -2)
        )
        return per_class.norm(dim=1), fc.bias.grad.flatten().abs()

    left, left_bias = slopes(zeroed=False)
    start, start_bias = slopes(zeroed=True)
    # The weights are kept in float32.
    assert (left <= 1e-5 * start.max()).all()
    assert (left_bias <= 1e-5 * start_bias.max()).all()


def row_decay(head, decay):
    """The weight decay of every row of the stacked weights."""
    groups = getattr(head, 'head_groups', [[c] for c in range(10)])
    width = max(map(len, groups))
    rows = [[decay[c] for c in group] + [0.0] * (width - len(group)) for group in groups]
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 1)


def test_every_view_is_a_row_and_the_answer_does_not_depend_on_seed_or_batches(cfg, tmp_path):
    pipeline = cfg.train_dataloader.dataset.pipeline
    pipeline.insert(1, dict(type='RandomFlip', prob=0.5, direction='horizontal'))
    result = run(cfg, tmp_path, views=3)
    assert len(stored(result)[1]) == 72
    one = run(cfg, tmp_path).runner.model.head.fc.weight
    cfg.train_dataloader.batch_size = 5
    cfg.optim_wrapper.optimizer.lr = 10.0
    assert torch.equal(run(cfg, tmp_path).runner.model.head.fc.weight, one)


def test_weight_decay_is_chosen_on_held_out_images(cfg, tmp_path, caplog):
    cfg.log_level = 'INFO'
    cfg.train_dataloader.dataset.length = 60
    result = run(cfg, tmp_path, 'cv')
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert 'Average precision on held-out images of 5 folds' in log
    rows = re.findall(r'│ +([\de.-]+) │ +([\d.]+) │ +[\d.]+ │ +[\d.]+ │ +(.*?) +│', log)
    assert len(rows) == 7
    best = max(rows, key=lambda row: float(row[1]))
    assert [row for row in rows if row[2] == '10 of 10 classes'] == [best]
    chosen = run(cfg, tmp_path, float(best[0])).runner.model.head.fc.weight
    torch.testing.assert_close(result.runner.model.head.fc.weight, chosen)
    assert re.search(r'largest relative gradient \d\.\de-(09|1\d)', log)


def test_each_class_may_choose_its_own(cfg, tmp_path):
    cfg.log_level = 'INFO'
    run(cfg, tmp_path, 'cv-per-class')
    log = next((tmp_path / 'work').glob('*/*.log')).read_text()
    assert sum(int(n) for n in re.findall(r'(\d+) of 10 classes │', log)) == 10


def test_folds_follow_content(cfg, tmp_path):
    from mhc_plugin.engine.loops.optimum_loop import image_folds

    cfg.train_dataloader.dataset.length = 40
    loop = run(cfg, tmp_path).runner.train_loop
    dataset = loop.dataloader.dataset
    folds = image_folds(dataset, loop.cache, loop.runner)
    assert len(set(folds.tolist())) > 1

    class Reversed:
        reader = dataset.reader

        def __len__(self):
            return len(dataset)

        def get_data_info(self, index):
            return dataset.get_data_info(len(dataset) - 1 - index)

    assert torch.equal(image_folds(Reversed(), loop.cache, loop.runner), folds.flip(0))


@pytest.mark.parametrize(
    ('head', 'reason'),
    [
        (dict(type='ConvMultiHeadClsHead'), '`ConvMultiHeadClsHead` is not known to be linear'),
        (dict(type='AttentionMultiHeadClsHead'), 'is not known to be linear'),
        (dict(hidden_channels=[4]), 'hidden layers'),
        (dict(dropout=0.1), 'dropout of 0.1'),
        (dict(loss=dict(type='AsymmetricLoss')), '`AsymmetricLoss` is not `PerHeadBCELoss`'),
    ],
)
def test_what_is_not_convex_is_refused_before_anything_is_stored(cfg, tmp_path, head, reason):
    cfg.model.head.update(head)
    with pytest.raises(ValueError, match=reason):
        run(cfg, tmp_path)
    assert not FeatureStore(tmp_path / 'cache').entries()


@pytest.mark.parametrize('decay', ['best', 0.0, [1.0, 2.0]])
def test_a_weight_decay_that_does_not_fit(cfg, tmp_path, decay):
    with pytest.raises(ValueError, match='weight_decay'):
        run(cfg, tmp_path, decay)
