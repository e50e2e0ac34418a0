"""Some classes of a config by themselves, and what is said where they are not."""

import pytest

from mhc_plugin.apis.class_choice import select_classes, what_couples


def test_heads_labels_and_metrics_of_some_classes(tiny_cfg):
    tiny_cfg.model.head.update(
        loss=dict(type='PerHeadBCELoss', loss_weight=list(range(10))), topk=4
    )
    by_threshold = dict(type='MultiLabelMetric', topk=None, thr=0.5)
    tiny_cfg.test_evaluator = [
        dict(type='TopKMultiLabelMetric', topk=(1, 4)),
        by_threshold,
        dict(type='mAP'),
    ]
    tiny_cfg.train_cfg.weight_decay = [0.1 * i for i in range(10)]
    assert select_classes(tiny_cfg, ['7', '2']) == ['2', '7']
    head = tiny_cfg.model.head
    assert (head.num_classes, head.topk, head.loss.loss_weight) == (2, 2, [2, 7])
    assert tiny_cfg.test_evaluator == [
        dict(type='TopKMultiLabelMetric', topk=[1]),
        by_threshold,
        dict(type='mAP'),
    ]
    assert tiny_cfg.train_cfg.weight_decay == [0.1 * 2, 0.1 * 7]
    assert tiny_cfg.train_dataloader.dataset.keep_classes == ['2', '7']
    with pytest.raises(ValueError, match="no class '3' in this config"):
        select_classes(tiny_cfg, ['3'])
    with pytest.raises(ValueError, match='each named once'):
        select_classes(tiny_cfg, ['2', '2'])


@pytest.mark.parametrize(
    ('changes', 'reason'),
    [
        ({}, None),
        ({'model.head.separate': False}, 'in one product'),
        (
            {'model.head.loss': dict(type='PerHeadBCELoss', head_reduction='mean')},
            '`head_reduction',
        ),
        ({'model.head.type': 'MultiLabelLinearClsHead'}, '`MultiLabelLinearClsHead` draws'),
        ({'model.head.connection': 'channels'}, "`connection='channels'`"),
        ({'model.type': 'ImageClassifier'}, 'may train the backbone'),
        ({'optim_wrapper.clip_grad': dict(max_norm=1.0)}, '`clip_grad`'),
        ({'optim_wrapper.optimizer.type': 'Lamb'}, '`Lamb` is not known'),
        ({'default_hooks': dict(checkpoint=dict(save_best='auto'))}, '`save_best`'),
        ({'custom_hooks': [dict(type='EarlyStoppingHook')]}, '`EarlyStoppingHook` ends'),
        ({'param_scheduler': [dict(type='ReduceOnPlateauLR')]}, '`ReduceOnPlateauLR` follows'),
        ({'train_cfg.weight_decay': 'cv'}, 'mean over classes'),
    ],
)
def test_what_couples_classes_is_named(tiny_cfg, changes, reason):
    tiny_cfg.model.head.separate = True
    tiny_cfg.merge_from_dict(changes)
    reasons = what_couples(tiny_cfg)
    assert len(reasons) == (reason is not None)
    assert reason is None or reason in reasons[0]
