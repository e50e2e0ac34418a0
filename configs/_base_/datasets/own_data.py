# Your own images, labels in a CSV file; own_data_json.py is for OpenMMLab's JSON.
#
#   data/own/images/a.jpg ...
#   data/own/train.csv, data/own/val.csv:
#       file,labels                image,cat,dog,horse
#       a.jpg,cat|dog       or     a.jpg,1,1,0
#       b.jpg,                     b.jpg,0,0,0
#
# For exports of annotation tools: python tools/prepare_dataset.py convert --help
#
# The one place that names the classes: order here is order of the model's outputs.
classes = ('cat', 'dog', 'horse')
num_classes = len(classes)

data_root = '{{$MHC_DATA_ROOT:data}}/own'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='RandomCrop', crop_size=224, padding=8),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]

test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='PackInputs'),
]

# 128 in total: tools/train.py divides it among the processes.
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='CSVMultiLabelDataset',
        data_root=data_root,
        ann_file='train.csv',
        data_prefix='images',
        classes=classes,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='CSVMultiLabelDataset',
        data_root=data_root,
        ann_file='val.csv',
        data_prefix='images',
        classes=classes,
        test_mode=True,
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
# There is no third file here; name it if you have one.
test_dataloader = val_dataloader

val_evaluator = [dict(type='TopKMultiLabelMetric', topk=1), dict(type='MultiLabelMeanAP')]
test_evaluator = val_evaluator
