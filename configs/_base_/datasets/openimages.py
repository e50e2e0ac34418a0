# The paper's subset of OpenImages: ten classes, images with 2 to 7 of them, at most 10,000 of each
# split, as even over the classes as can be had.
#
# Looked for below MHC_DATA_ROOT (or `data`), as OpenImages' downloader leaves it:
#     openimages/class-descriptions-boxable.csv
#     openimages/<split>-annotations-human-imagelabels-boxable.csv, <split>-annotations-bbox.csv
#     openimages/<split>/<ImageID>.jpg
# for the splits train and test; other versions' names are found, too. MHC_OPENIMAGES_IMAGES names
# another folder of images for all splits, below openimages/ if it is relative.
data_root = '{{$MHC_DATA_ROOT:data}}/openimages'
image_folder = '{{$MHC_OPENIMAGES_IMAGES:<split>}}'

# Which ten classes, as MHC_OPENIMAGES_CLASSES says:
# - animals (the default): the counterparts of voc.py's `development`. On the development data, which
#   has the VOC images' labels under OpenImages' names, `choose_classes` finds them among the
#   counterparts of VOC's twenty, from the labels of train and validation together;
# - chosen are chosen by the labels of train of the data at hand, among all classes.
class_choice = '{{$MHC_OPENIMAGES_CLASSES:animals}}'
classes = dict(
    animals=('Bottle', 'Car', 'Cat', 'Chair', 'Cattle', 'Dog', 'Horse', 'Person', 'Sheep', 'Couch'),
    chosen=dict(
        split='train', num_classes=10, min_labels=2, max_labels=7, max_images=10_000, seed=0
    ),
)[class_choice]
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
        type='OpenImagesSubset',
        data_root=data_root,
        split='train',
        classes=classes,
        min_labels=2,
        max_labels=7,
        max_images=10_000,
        image_folder=image_folder,
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
        type='OpenImagesSubset',
        data_root=data_root,
        split='test',
        classes=classes,
        min_labels=2,
        max_labels=7,
        max_images=10_000,
        with_boxes=True,
        image_folder=image_folder,
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
