"""Sight as a promise: what a head's maps say of a cell that cannot speak for a class.

After DiFull of Rao, Boehle and Schiele, "Towards Better Understanding Attribution Methods", CVPR
2022: the features of a cell are computed apart, so that they are blind to all other cells.
"""

import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

import mhc_plugin  # noqa: F401

CLASSES, WIDTH = 4, 3


class CellBackbone(nn.Module):
    """Every class shows in channels of its own; cells are computed one by one."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.rand(WIDTH, 1, 3, 3, generator=generator)
        self.register_buffer('weight', weight)

    def forward(self, image, cells):
        """Image (1, 16, 16) of 2 x 2 cells, each of the class that ``cells`` says."""
        maps = torch.zeros(CLASSES * WIDTH, 8, 8)
        for i, c in enumerate(cells):
            top, left = 8 * (i // 2), 8 * (i % 2)
            own = image[:, top : top + 8, left : left + 8]
            out = torch.conv2d(own[None], self.weight, stride=2, padding=1)[0]
            rows, columns = slice(top // 2, top // 2 + 4), slice(left // 2, left // 2 + 4)
            maps[c * WIDTH : (c + 1) * WIDTH, rows, columns] = out
        return maps


def trained(cfg):
    """A head of which every class has learned to look at its own channels alone."""
    torch.manual_seed(0)
    head = MODELS.build(dict(cfg, num_classes=CLASSES, in_channels=CLASSES * WIDTH))
    heads = head.split_heads()
    for c, split in enumerate(heads):
        for p in split.parameters():
            nn.init.uniform_(p, 0.1, 1)
            if p.dim() > 1 and p.shape[1] == CLASSES * WIDTH:
                own = p.data[:, c * WIDTH : (c + 1) * WIDTH].clone()
                p.data.zero_()[:, c * WIDTH : (c + 1) * WIDTH] = own
    head.stack_heads(heads)
    return head.eval()


def features():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(3, 1, 16, 16, generator=generator)
    cells = [[0, 1, 2, 3], [3, 0, 1, 0], [2, 2, 1, 3]]
    backbone = CellBackbone()
    maps = torch.stack([backbone(image, row) for image, row in zip(images, cells)])
    speaks = torch.zeros(3, CLASSES, 8, 8, dtype=torch.bool)
    for n, row in enumerate(cells):
        for i, c in enumerate(row):
            top, left = 4 * (i // 2), 4 * (i % 2)
            speaks[n, c, top : top + 4, left : left + 4] = True
    return maps, speaks


@pytest.mark.parametrize('normalize', [None, 'image', 'position', 'root'])
@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='MultiHeadClsHead'),
        dict(type='MultiHeadClsHead', pool='max'),
        dict(type='MultiHeadClsHead', pool='lse'),
        dict(type='MultiHeadClsHead', hidden_channels=(5,)),
        dict(type='AttentionMultiHeadClsHead', num_attentions=1),
        dict(type='AttentionMultiHeadClsHead'),
    ],
    ids=lambda cfg: '-'.join(map(str, cfg.values())),
)
def test_a_cell_that_cannot_speak_for_a_class_is_given_exactly_nothing(cfg, normalize):
    maps, speaks = features()
    head = trained(dict(cfg, normalize=normalize))
    _, given = head.logits_and_maps((maps,))
    assert not given[~speaks].any()
    shown = speaks.flatten(2).any(2)
    assert (given.flatten(2).abs().sum(2)[shown] > 0).all()
    assert (head.class_maps((maps,))[~speaks] == 0).all()


@pytest.mark.parametrize('name', ['ConvMultiHeadClsHead', 'ConvClsHead'])
def test_convolutions_cannot_promise_it(name):
    """Their norm and bias speak everywhere, and a kernel of 3 looks one position over the edge."""
    maps, speaks = features()
    torch.manual_seed(0)
    head = MODELS.build(
        dict(type=name, num_classes=CLASSES, in_channels=CLASSES * WIDTH, conv_channels=4)
    )
    head.train()((maps,))
    given = head.eval().class_maps((maps,))
    assert given[~speaks].any()
