from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS

from mhc_plugin.datasets.transforms import NormalizeBoxes
from mhc_plugin.datasets.transforms.boxes import keeps_whole_image

RESIZE = dict(type='Resize', scale=(20, 10))
FLIP = dict(type='RandomFlip', prob=1.0)
BOXES = dict(type='NormalizeBoxes')
KEYS = ('gt_bboxes', 'gt_bbox_labels', 'gt_bbox_difficult')
PACK = dict(type='PackInputs', algorithm_keys=KEYS)


def built(*transforms):
    # Transforms that hold others look for them in the scope that a config sets.
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return [TRANSFORMS.build(transform) for transform in deepcopy(transforms)]


def sample():
    """40 pixels wide and 30 high."""
    return dict(
        img=np.zeros((30, 40, 3), np.uint8),
        img_shape=(30, 40),
        gt_bboxes=np.array([[4, 3, 20, 30], [0, 0, 40, 15]], np.float32),
        gt_bboxes_labels=np.array([2, 0]),
        gt_bbox_difficult=np.array([True, False]),
    )


@pytest.mark.parametrize(
    ('transforms', 'expected'),
    [
        ([], [[0.1, 0.1, 0.5, 1], [0, 0, 1, 0.5]]),
        ([RESIZE], [[0.1, 0.1, 0.5, 1], [0, 0, 1, 0.5]]),
        ([FLIP], [[0.5, 0.1, 0.9, 1], [0, 0, 1, 0.5]]),
        ([RESIZE, dict(FLIP, direction='vertical')], [[0.1, 0, 0.5, 0.9], [0, 0.5, 1, 1]]),
        ([dict(FLIP, direction='diagonal'), RESIZE], [[0.5, 0, 0.9, 0.9], [0, 0.5, 1, 1]]),
        # Padded at the right and below, to 50 x 40.
        ([dict(type='Pad', size=(50, 40))], [[0.08, 0.075, 0.4, 0.75], [0, 0, 0.8, 0.375]]),
    ],
)
def test_boxes_follow_the_image(transforms, expected):
    packed = Compose(built(*transforms, BOXES, PACK))(sample())['data_samples']
    torch.testing.assert_close(packed.gt_bboxes, torch.tensor(expected))
    assert packed.gt_bbox_labels.tolist() == [2, 0]
    assert packed.gt_bbox_labels.dtype == torch.int64
    assert packed.gt_bbox_difficult.tolist() == [True, False]


def test_image_without_an_object_has_no_boxes():
    empty = dict(
        sample(),
        gt_bboxes=np.empty((0, 4), np.float32),
        gt_bboxes_labels=np.empty(0, np.int64),
        gt_bbox_difficult=np.empty(0, bool),
    )
    packed = Compose(built(RESIZE, FLIP, BOXES, PACK))(empty)['data_samples']
    assert packed.gt_bboxes.shape == (0, 4)
    assert packed.gt_bbox_labels.shape == (0,)


def test_sample_without_boxes_passes():
    results = dict(img=np.zeros((3, 4, 3)), img_shape=(3, 4))
    assert NormalizeBoxes().transform(results) is results
    assert repr(NormalizeBoxes()) == 'NormalizeBoxes()'


WHOLE = [
    [],
    [dict(type='LoadImageFromFile'), RESIZE, FLIP, BOXES, PACK],
    [dict(type='RandomFlipWithCells', prob=0.5), dict(type='ColorJitter', brightness=0.1)],
    [dict(type='RandomResize', scale=(20, 10)), dict(type='RandomErasing')],
    [dict(type='RandomApply', transforms=[FLIP, dict(type='Sharpness', magnitude=0.1)], prob=0.5)],
    [dict(type='RandomChoice', transforms=[[RESIZE], [FLIP, dict(type='GaussianBlur', radius=1)]])],
    [
        dict(
            type='TestTimeAug', transforms=[[RESIZE], [FLIP, dict(FLIP, prob=0.0)], [BOXES], [PACK]]
        )
    ],
]
CROPPED = [
    [RESIZE, dict(type='RandomCrop', crop_size=10, padding=2)],
    [dict(type='RandomResizedCrop', scale=10)],
    [dict(type='ResizeEdge', scale=20, edge='short'), dict(type='CenterCrop', crop_size=10)],
    [dict(type='RandAugment', policies='timm_increasing', num_policies=2, magnitude_level=9)],
    [dict(type='AutoAugment', policies='imagenet')],
    [dict(type='torchvision/RandomRotation', degrees=10)],
    [dict(type='RandomApply', transforms=[dict(type='RandomCrop', crop_size=10)], prob=0.5)],
    [dict(type='RandomChoice', transforms=[[FLIP], [dict(type='CenterCrop', crop_size=10)]])],
    [dict(type='TestTimeAug', transforms=[[RESIZE, dict(type='RandomCrop', crop_size=9)], [PACK]])],
]


@pytest.mark.parametrize('transforms', WHOLE)
def test_pipelines_that_keep_the_whole_image(transforms):
    assert keeps_whole_image(built(*transforms))
    assert keeps_whole_image([Compose(built(*transforms))])


@pytest.mark.parametrize('transforms', CROPPED)
def test_pipelines_that_do_not(transforms):
    assert not keeps_whole_image(built(*transforms))
    assert not keeps_whole_image([Compose(built(*transforms, FLIP))])


def test_a_transform_that_is_not_known_does_not():
    assert not keeps_whole_image([lambda results: results])
