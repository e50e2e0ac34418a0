"""Parts that ``tiny.py`` needs."""

import random

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS, TRANSFORMS


class Stopped(Exception):
    """Raised by :class:`StopHook`."""


@HOOKS.register_module()
class StopHook(Hook):
    """End a run as if it had been killed, before iteration ``iteration``."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            raise Stopped


@TRANSFORMS.register_module()
class AddNoise(BaseTransform):
    """Add a number of each generator to the image."""

    def transform(self, results: dict) -> dict:
        noise = random.random() + np.random.random() + torch.rand(1).item()
        results['img'] = (results['img'] * 0.5 + 40 * noise).astype(np.uint8)
        return results


@TRANSFORMS.register_module()
class ForgetTargets(BaseTransform):
    """Make targets unknown, more of them in every other image."""

    def transform(self, results: dict) -> dict:
        scores = results['gt_score'] = results['gt_score'].copy()
        scores[results['sample_idx'] % 10] = -1
        if results['sample_idx'] % 2:
            scores[::3] = -1
        return results
