"""Class maps of all classes against the plain forward pass, and against pytorch_grad_cam."""

import argparse

import torch
from mmpretrain.registry import MODELS
from rich.table import Table
from torch import Tensor, nn

import mhc_plugin  # noqa: F401
from mhc_plugin.class_maps import inherent_maps

from .timing import medians, print_table

HEADS = {
    'MultiFC': (None, dict(type='MultiHeadClsHead')),
    'baseline': (dict(type='GlobalAveragePooling'), dict(type='MultiLabelLinearClsHead')),
    'MultiConv': (None, dict(type='ConvMultiHeadClsHead')),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--classes', type=int, default=80)
    parser.add_argument('--batch-size', type=int, default=32)
    parser.add_argument('--size', type=int, default=224, help='of the images')
    parser.add_argument('--rounds', type=int, default=5, help='timed rounds; medians are shown')
    parser.add_argument(
        '--cam-calls',
        type=int,
        default=5,
        help='timed calls of pytorch_grad_cam, each for one class of the batch after one that is '
        'not timed; their median is multiplied by the number of classes',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')


def build(name: str, args: argparse.Namespace) -> nn.Module:
    neck, head = HEADS[name]
    model = MODELS.build(
        dict(
            type='FrozenBackboneClassifier',
            backbone=dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'),
            neck=neck,
            head=dict(head, num_classes=args.classes, in_channels=1280),
        )
    )
    return model.to(args.device).eval()


@torch.no_grad()
def forward_with_maps(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    feats = model.extract_feat(images, stage='backbone')
    logits = model.head(feats if model.neck is None else model.neck(feats))
    return logits, inherent_maps(model, feats)


def main(args: argparse.Namespace) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.randn(args.batch_size, 3, args.size, args.size, device=args.device)
    table = Table('head', title=f'{args.classes} classes, {args.batch_size} images, {args.device}')
    for column in (
        'forward, s',
        'with all maps, s',
        'ratio',
        'grad-cam per class, s',
        'times slower',
    ):
        table.add_column(column, justify='right')
    for name in HEADS:
        model = build(name, args)
        cam = GradCAM(model, [model.backbone.timm_model.bn2])
        # The library needs gradients at its target layer; those of the input give them.
        wanted = images.clone().requires_grad_()

        @torch.no_grad()
        def forward(model=model) -> Tensor:
            return model(images)

        def grad_cam(cam=cam, wanted=wanted) -> None:
            cam(wanted, [ClassifierOutputTarget(0)] * len(images))

        times = medians(
            dict(plain=forward, maps=lambda model=model: forward_with_maps(model, images)),
            args.rounds,
        )
        per_class = medians(dict(cam=grad_cam), args.cam_calls, warmup=1)['cam']
        table.add_row(
            name,
            f'{times["plain"]:.3f}',
            f'{times["maps"]:.3f}',
            f'{times["maps"] / times["plain"]:.2f}',
            f'{per_class:.2f}',
            f'{per_class * args.classes / times["maps"]:.0f}',
        )
    print_table(table)
