# Splices of Imagenette. The paper does not name the source of its combined dataset 0; this is ours.
_base_ = './spliced.py'

# Holds imagenette160, imagenette2-160, imagenette2-320 or imagenette2.
data_root = '{{$MHC_DATA_ROOT:data}}'
classes = (
    'tench',
    'English springer',
    'cassette player',
    'chain saw',
    'church',
    'French horn',
    'garbage truck',
    'gas pump',
    'golf ball',
    'parachute',
)
num_classes = len(classes)

train_source = dict(type='Imagenette', data_root=data_root, split='train')
test_source = dict(type='Imagenette', data_root=data_root, split='val')

train_dataloader = dict(dataset=dict(classes=classes, source=train_source, exclude=test_source))
val_dataloader = dict(dataset=dict(classes=classes, source=test_source))
test_dataloader = val_dataloader
