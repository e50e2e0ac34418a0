# What all spliced sets share: 3,000 training and 1,000 test composites of 2 x 2 tiles, the
# paper's augmentation and its metrics. The sets themselves (combined0.py, combined1.py,
# digits.py) add `classes`, `source` and `exclude`.
tile_size = 112

train_pipeline = [
    dict(type='ComposeTiles'),
    dict(type='Resize', scale=224),
    # Zeros on each side, then a random window. It moves the image by up to 8 pixels, so
    # `gt_cells` stays true but for the 8 pixels next to the border between two tiles.
    dict(type='RandomCrop', crop_size=224, padding=8),
    dict(type='RandomFlipWithCells', prob=0.5, direction='horizontal'),
    dict(type='PackInputs', algorithm_keys=('gt_cells',)),
]

test_pipeline = [
    dict(type='ComposeTiles'),
    dict(type='Resize', scale=224),
    dict(type='PackInputs', algorithm_keys=('gt_cells',)),
]

# For `test.py --tta`, which would else flip by mmcv's RandomFlip and leave `gt_cells` behind.
# The image as it is comes first: its cells are those of the merged prediction.
tta_pipeline = [
    dict(type='ComposeTiles'),
    dict(type='Resize', scale=224),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='RandomFlipWithCells', prob=0.0),
                dict(type='RandomFlipWithCells', prob=1.0),
            ],
            [dict(type='PackInputs', algorithm_keys=('gt_cells',))],
        ],
    ),
]

# 128 in total: tools/train.py divides it among the processes.
train_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='SplicedDataset',
        grid=(2, 2),
        tile_size=tile_size,
        length=3000,
        seed=0,
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)

# The test composites serve for validation, too: no setting is chosen by their scores.
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    dataset=dict(
        type='SplicedDataset',
        grid=(2, 2),
        tile_size=tile_size,
        length=1000,
        seed=1,
        test_mode=True,
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader

# Four of the classes are in every composite, so the four highest scores count as predicted.
val_evaluator = [
    dict(type='TopKMultiLabelMetric', topk=4, average='micro'),
    dict(type='MultiLabelMeanAP'),
]
test_evaluator = val_evaluator
