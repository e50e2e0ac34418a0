_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_demo.py',
    '../_base_/default_runtime.py',
]

model = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=10,
        in_channels=1280,
        loss=dict(type='PerHeadBCELoss', head_reduction='sum'),
    ),
)
