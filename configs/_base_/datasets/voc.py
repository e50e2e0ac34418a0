# The paper's subset of PASCAL VOC: ten classes, images with 2 to 7 of them, at most 10,000, as even
# over the classes as can be had. VOC does not hold 10,000 such images: all there are are taken.
#
# Looked for in VOCdevkit/VOC2007 and VOCdevkit/VOC2012 below MHC_DATA_ROOT (or `data`); one of the
# two will do. Training is on trainval of both, testing on test of those that have one.
data_root = '{{$MHC_DATA_ROOT:data}}/VOCdevkit'
voc_roots = [f'{data_root}/VOC2007', f'{data_root}/VOC2012']

# Which ten classes, as MHC_VOC_CLASSES says:
# - voc (the default) leave more images with 2 to 7 classes than any other ten of VOC's twenty, on
#   the label lists of VOC2007 (trainval and test) and VOC2012 (val): 4,047 of 15,786;
# - development do so on the small VOC2012 that the project is developed with: 428 of 1,038;
# - chosen are chosen by the trainval of the data at hand, in the same way: see `choose_classes`.
class_choice = '{{$MHC_VOC_CLASSES:voc}}'
__choices = dict(  # MMEngine leaves names that begin with two underscores out of the config.
    voc=(
        'bicycle',
        'bottle',
        'car',
        'chair',
        'diningtable',
        'dog',
        'horse',
        'motorbike',
        'person',
        'tvmonitor',
    ),
    development=('bottle', 'car', 'cat', 'chair', 'cow', 'dog', 'horse', 'person', 'sheep', 'sofa'),
    chosen=dict(
        split='trainval', num_classes=10, min_labels=2, max_labels=7, max_images=10_000, seed=0
    ),
)
if class_choice not in __choices:
    raise ValueError(f'MHC_VOC_CLASSES is {class_choice!r}; it can be {", ".join(__choices)}.')
classes = __choices[class_choice]
num_classes = 10

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    # Zeros on each side, then a random window.
    dict(type='RandomCrop', crop_size=224, padding=8),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]

# Boxes are for scoring class maps; a pipeline that crops drops them.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224)),
    dict(type='NormalizeBoxes'),
    dict(type='PackInputs', algorithm_keys=('gt_bboxes', 'gt_bbox_labels', 'gt_bbox_difficult')),
]

# 128 in total: tools/train.py divides it among the processes.
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='VOCSubset',
        data_root=voc_roots,
        split='trainval',
        classes=classes,
        min_labels=2,
        max_labels=7,
        max_images=10_000,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

# The test images serve for validation, too: no setting is chosen by their scores.
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='VOCSubset',
        data_root=voc_roots,
        split='test',
        classes=classes,
        min_labels=2,
        max_labels=7,
        max_images=10_000,
        test_mode=True,
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader

val_evaluator = [
    dict(type='TopKMultiLabelMetric', topk=(1, 2, 3, 4, 5), average='macro'),
    dict(type='MultiLabelMeanAP'),
]
test_evaluator = val_evaluator
