_base_ = [
    '../_base_/models/vgg19.py',
    '../_base_/datasets/combined0.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=10,
        in_channels=512,
        loss=dict(type='PerHeadBCELoss', head_reduction='sum'),
    ),
)
