# VGG-19 without batch norm, frozen, with ImageNet-1k weights of MMPretrain's model zoo. With batch
# norm: add `norm_cfg=dict(type='BN')` to the backbone and take this checkpoint:
# https://download.openmmlab.com/mmclassification/v0/vgg/vgg19_bn_batch256_imagenet_20210208-da620c4f.pth
model = dict(
    type='FrozenBackboneClassifier',
    backbone=dict(
        type='VGG',
        depth=19,
        out_indices=(4,),
        frozen_stages=5,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/vgg/vgg19_batch256_imagenet_20210208-e6920e4a.pth',
            prefix='backbone',
        ),
    ),
    head=dict(in_channels=512),
)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
