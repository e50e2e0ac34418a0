"""The heads that are compared, and how each is trained; those of others live here."""

import hashlib
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from mmpretrain.models import MultiLabelClsHead
from mmpretrain.registry import MODELS
from torch import Tensor, nn

import mhc_plugin  # noqa: F401
from mhc_plugin.utils.seeding import seeded


class BcosLinearHead(MultiLabelClsHead):
    """The mean over positions of a linear B-cos unit (Boehle et al., CVPR 2022) with B = 2."""

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.weight = nn.Parameter(0.01 * torch.randn(num_classes, in_channels))
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def logits_and_maps(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        x = feats[-1]
        projected = F.conv2d(x, F.normalize(self.weight)[..., None, None])
        cosine = projected / x.norm(dim=1, keepdim=True).clamp(min=1e-6)
        maps = projected * cosine.abs() * self.scale[:, None, None]
        return maps.mean((2, 3)) + self.bias, maps

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.logits_and_maps(feats)[0]

    def class_maps(self, feats: tuple[Tensor, ...]) -> Tensor:
        return self.logits_and_maps(feats)[1].clamp(min=0)

    @property
    def class_bias(self) -> Tensor:
        return self.bias


class MLDecoderHead(MultiLabelClsHead):
    """timm's ML-Decoder (Ridnik et al., WACV 2023), its parts called one by one.

    ``nn.TransformerDecoder`` of newer versions of torch hands arguments to its layers that timm's
    do not take.
    """

    def __init__(self, num_classes: int, in_channels: int, **kwargs) -> None:
        from timm.layers.ml_decoder import MLDecoder

        super().__init__(**kwargs)
        self.decoder = MLDecoder(num_classes, initial_num_features=in_channels)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        d = self.decoder
        memory = d.embed_standart(feats[-1].flatten(2).transpose(1, 2)).relu().transpose(0, 1)
        out = d.query_embed.weight.unsqueeze(1).expand(-1, memory.shape[1], -1)
        for layer in d.decoder.layers:
            out = layer(out, memory)
        out = torch.einsum('qnd,qdf->nqf', out, d.duplicate_pooling).flatten(1)
        return out[:, : d.num_classes] + d.duplicate_pooling_bias


@dataclass(frozen=True)
class Peer:
    """A head and how it is trained.

    Attributes:
        head (dict | type): Config without ``num_classes`` and ``in_channels``, or class of one.
        optimizer (dict): Changes to SGD with a learning rate of 0.01 and momentum 0.9.
        weight_decay (float): Of the weights, not of biases and scales.
        epochs (int): Cosine annealing ends with them.
        bfloat16 (bool): Whether products in training are in bfloat16.
        sight (bool): Whether its maps are measured; a gradient per class and image may be too dear.
        from_optimum (bool): Whether an attention starts from the optimum of its linear term.
    """

    head: dict | type
    optimizer: dict = field(default_factory=dict)
    weight_decay: float = 0.0
    epochs: int = 30
    bfloat16: bool = False
    sight: bool = True
    from_optimum: bool = False

    def build(self, num_classes: int, in_channels: int, seed: int) -> nn.Module:
        options = dict(num_classes=num_classes, in_channels=in_channels)
        options['loss'] = dict(type='PerHeadBCELoss')
        with seeded(seed):
            if not isinstance(self.head, dict):
                return self.head(**options)
            head = MODELS.build(dict(self.head, **options))
            head.init_weights()
            return head

    @property
    def key(self) -> str:
        """Hash of the setting and of the file that the head is in."""
        head = self.head if isinstance(self.head, type) else MODELS.get(self.head['type'])
        source = Path(sys.modules[head.__module__].__file__).read_bytes()
        name = self.head.__name__ if isinstance(self.head, type) else self.head
        setting = (name, self.optimizer, self.weight_decay, self.epochs, self.bfloat16)
        setting += ('from the optimum',) * self.from_optimum
        if isinstance(self.head, type):
            # Not all peers again where one of them changes.
            source = inspect.getsource(self.head).encode()
        return hashlib.sha256(repr(setting).encode() + source).hexdigest()[:16]


ADAMW = dict(type='AdamW', lr=1e-3)
PEERS = {
    'linear = MultiFC, avg': Peer(dict(type='MultiHeadClsHead')),
    'linear, by image': Peer(dict(type='MultiHeadClsHead', normalize='image')),
    'linear, by position': Peer(dict(type='MultiHeadClsHead', normalize='position')),
    'linear, by root': Peer(dict(type='MultiHeadClsHead', normalize='root'), weight_decay=0.03),
    'MultiFC, max': Peer(dict(type='MultiHeadClsHead', pool='max')),
    'MultiFC, lse': Peer(dict(type='MultiHeadClsHead', pool='lse')),
    # On held-out training images 1 is the best of 0.1, 0.3, 1 and 3.
    'B-cos linear': Peer(BcosLinearHead, dict(lr=1.0)),
    'CSRA': Peer(dict(type='CSRAClsHead', num_heads=1, lam=0.1)),
    'ConvFC-16': Peer(dict(type='ConvClsHead')),
    'ConvFC-160': Peer(dict(type='ConvClsHead', conv_channels=160)),
    'ConvFC-160, AdamW': Peer(dict(type='ConvClsHead', conv_channels=160), ADAMW, 0.01, 20),
    'MultiConv': Peer(dict(type='ConvMultiHeadClsHead')),
    'MultiConv, AdamW': Peer(dict(type='ConvMultiHeadClsHead'), ADAMW, 0.01, 20),
    'MultiConv, by root': Peer(
        dict(type='ConvMultiHeadClsHead', normalize='root'), weight_decay=0.03
    ),
    'ML-Decoder': Peer(MLDecoderHead, dict(type='AdamW', lr=3e-4), 0.01, 20, True, sight=False),
    'attention, one': Peer(
        dict(type='AttentionMultiHeadClsHead', num_attentions=1), weight_decay=0.03
    ),
    'attention': Peer(dict(type='AttentionMultiHeadClsHead'), weight_decay=0.03),
    'attention, 3 epochs': Peer(
        dict(type='AttentionMultiHeadClsHead'), weight_decay=0.03, epochs=3
    ),
    'attention, 3 epochs from the optimum': Peer(
        dict(type='AttentionMultiHeadClsHead'), weight_decay=0.03, epochs=3, from_optimum=True
    ),
}
