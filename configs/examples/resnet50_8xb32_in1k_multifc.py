# Our heads in an existing MMPretrain config: only head, loss, metrics and data change. It runs with
# MMPretrain's own tools/train.py, too.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
custom_imports = dict(imports=['mhc_plugin'])

classes = ('cat', 'dog', 'horse')
num_classes = len(classes)

# To freeze the backbone, add type='FrozenBackboneClassifier' and the backbone's weights. For
# ConvMultiHeadClsHead, add neck=None: its convolutions need maps.
model = dict(
    head=dict(
        _delete_=True,
        type='MultiHeadClsHead',
        num_classes=num_classes,
        in_channels=2048,
        loss=dict(type='PerHeadBCELoss'),
    )
)
data_preprocessor = dict(num_classes=num_classes)

dataset = dict(
    _delete_=True,
    type='CSVMultiLabelDataset',
    data_root='{{$MHC_DATA_ROOT:data}}/own',
    data_prefix='images',
    classes=classes,
)
train_dataloader = dict(
    dataset=dict(dataset, ann_file='train.csv', pipeline={{_base_.train_pipeline}})
)
val_dataloader = dict(
    dataset=dict(dataset, ann_file='val.csv', test_mode=True, pipeline={{_base_.test_pipeline}})
)
test_dataloader = val_dataloader

val_evaluator = [dict(type='TopKMultiLabelMetric', topk=1), dict(type='MultiLabelMeanAP')]
test_evaluator = val_evaluator
