"""Samples that every metric of ours can be computed on, and an evaluator with all of them."""

import torch
from mmengine.evaluator import Evaluator

from mhc_plugin.evaluation import (
    EnergyPointingGame,
    GridPointingGame,
    MapCorrelation,
    MultiLabelMeanAP,
    PointingGame,
    TopKMultiLabelMetric,
)

NUM_SAMPLES = 11  # odd, so that the sampler repeats one


def make_samples():
    rng = torch.Generator().manual_seed(0)
    return [
        dict(
            pred_score=(torch.rand(5, generator=rng) * 8).round() / 8,
            gt_score=torch.randint(-1, 2, (5,), generator=rng).float(),
            pred_cam=torch.rand(5, 3, 3, generator=rng),
            gt_cells=torch.randperm(5, generator=rng)[:4].reshape(2, 2),
            gt_bboxes=torch.rand(3, 2, generator=rng).repeat(1, 2).clamp(max=0.6)
            + torch.tensor([0.0, 0.0, 0.4, 0.4]),
            gt_bbox_labels=torch.randint(0, 5, (3,), generator=rng),
            img_shape=(12, 12),
        )
        for _ in range(NUM_SAMPLES)
    ]


def make_evaluator():
    return Evaluator(
        [
            TopKMultiLabelMetric(topk=(1, 3)),
            TopKMultiLabelMetric(topk=2, average='micro'),
            MultiLabelMeanAP(),
            MultiLabelMeanAP(eval_mode='11points'),
            GridPointingGame(sure_thr=0.25),
            EnergyPointingGame(),
            PointingGame(),
            MapCorrelation(),
        ]
    )
