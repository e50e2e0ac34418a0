"""What MMEngine reports of our metrics is what they computed, also after many epochs."""

import json
import re
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import LogProcessor
from mmpretrain.registry import HOOKS
from samples_of_all_metrics import make_evaluator, make_samples
from tiny_configs import tiny_cfg  # noqa: F401

from mhc_plugin.apis import train


def names_of_all_metrics():
    samples = make_samples()
    evaluator = make_evaluator()
    evaluator.process(samples)
    return list(evaluator.evaluate(len(samples)))


def test_mmengine_averages_no_name_of_ours():
    names = names_of_all_metrics()
    assert any('hamming_distance' in name for name in names)
    pattern = LogProcessor().mean_pattern
    assert not [name for name in names if re.search(pattern, name)]


@HOOKS.register_module(force=True)
class KeepMetrics(Hook):
    """Draw the heads anew before every validation, and keep what it gave."""

    found = []

    def before_val_epoch(self, runner):
        torch.nn.init.normal_(runner.model.head.fc.weight)

    def after_val_epoch(self, runner, metrics=None):
        self.found.append(metrics)


def test_a_run_reports_what_was_computed(tiny_cfg):  # noqa: F811
    tiny_cfg.train_cfg.max_epochs = 4
    tiny_cfg.val_cfg = dict(type='ClassMapValLoop')
    tiny_cfg.val_evaluator = [
        *(dict(type='TopKMultiLabelMetric', topk=4, average=a) for a in ('macro', 'micro')),
        dict(type='MultiLabelMeanAP'),
        dict(type='GridPointingGame'),
        dict(type='MapCorrelation'),
    ]
    KeepMetrics.found = []
    tiny_cfg.custom_hooks = [dict(type='KeepMetrics', priority='VERY_LOW')]
    result = train(tiny_cfg)
    (path,) = Path(result.runner._log_dir).rglob('scalars.json')
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    reported = [line for line in lines if any(name in line for name in KeepMetrics.found[0])]
    assert len(reported) == len(KeepMetrics.found) == 4
    name = 'multi-label/hamming_distance_top4_micro'
    assert len({metrics[name] for metrics in KeepMetrics.found}) > 1
    for line, metrics in zip(reported, KeepMetrics.found):
        assert {k: line[k] for k in metrics} == pytest.approx(metrics, rel=1e-12, nan_ok=True)
