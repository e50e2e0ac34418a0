"""A classifier small enough to be built in every test."""

import pytest
import torch
from mmpretrain.registry import MODELS

NUM_CLASSES = 5
CHANNELS = 64


@pytest.fixture
def build():
    """Build an MMPretrain classifier with a tiny ResNet: maps (N, 64, 3, 3) for 96 pixels."""

    def build(head=None, neck=dict(type='GlobalAveragePooling'), backbone=None, seed=0):
        torch.manual_seed(seed)
        backbone = dict(
            type='ResNet', depth=18, stem_channels=8, base_channels=8, **(backbone or {})
        )
        head = head or dict(
            type='MultiLabelLinearClsHead', num_classes=NUM_CLASSES, in_channels=CHANNELS
        )
        model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head))
        # Weights of a size that makes the logits of classes differ.
        for parameter in model.head.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        model.eval()
        return model

    return build


@pytest.fixture
def images():
    return torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(1))
