# Trains and tests in seconds: splices of digits, 32 px, and a narrow random backbone.
_base_ = ['../../configs/_base_/default_runtime.py', '../../configs/_base_/schedules/sgd_demo.py']
custom_imports = dict(imports=['mhc_plugin', 'tiny_parts'])

model = dict(
    type='FrozenBackboneClassifier',
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, to_rgb=True),
    backbone=dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        stem_channels=8,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
    ),
    head=dict(type='MultiHeadClsHead', num_classes=10, in_channels=16, dropout=0.2),
)

source = dict(type='SklearnDigits')
pack = dict(type='PackInputs', algorithm_keys=('gt_cells',))
test_pipeline = [dict(type='ComposeTiles'), pack]
train_pipeline = [
    dict(type='ComposeTiles'),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlipWithCells', prob=0.5),
    # Draws from all three generators.
    dict(type='AddNoise'),
    pack,
]
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='SplicedDataset',
        source=dict(split='train', **source),
        tile_size=16,
        length=40,
        pipeline=train_pipeline,
    ),
)
# 33 images do not divide evenly between two processes.
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='SplicedDataset',
        source=dict(split='test', **source),
        tile_size=16,
        length=33,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='TopKMultiLabelMetric', topk=4, average='micro'),
    dict(type='MultiLabelMeanAP'),
]
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(lr=0.2))
total_batch_size = 16
