_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/combined0.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

# Class c of 10 is fed by stage c * 2 // 10 of the last two.
model = dict(
    backbone=dict(features_only=True, out_indices=(3, 4)),
    head=dict(
        type='ConvMultiHeadClsHead',
        in_channels=(112, 320),
        connection='stages',
        head_stages=[0] * 5 + [1] * 5,
    ),
)
