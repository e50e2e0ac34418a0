_base_ = [
    '../_base_/models/seresnet50.py',
    '../_base_/datasets/combined1.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=10,
        in_channels=2048,
        loss=dict(type='PerHeadBCELoss', head_reduction='sum'),
    ),
)
