# SE-ResNet50, frozen, with ImageNet-1k weights of MMPretrain's model zoo.
model = dict(
    type='FrozenBackboneClassifier',
    backbone=dict(
        type='SEResNet',
        depth=50,
        num_stages=4,
        out_indices=(3,),
        style='pytorch',
        frozen_stages=4,
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://download.openmmlab.com/mmclassification/v0/se-resnet/se-resnet50_batch256_imagenet_20200804-ae206104.pth',
            prefix='backbone',
        ),
    ),
    head=dict(in_channels=2048),
)

data_preprocessor = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
