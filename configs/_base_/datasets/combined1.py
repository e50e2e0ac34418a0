# Splices of ten classes of Caltech-101, in MMPretrain's layout. The paper does not name the source
# of its combined dataset 1; this is ours.
_base_ = './spliced.py'

data_root = '{{$MHC_DATA_ROOT:data}}/caltech-101'
classes = (
    'airplanes',
    'Motorbikes',
    'Faces',
    'watch',
    'Leopards',
    'bonsai',
    'car_side',
    'ketch',
    'chandelier',
    'hawksbill',
)
num_classes = len(classes)

train_source = dict(type='Caltech101', data_root=data_root, split='train')
test_source = dict(type='Caltech101', data_root=data_root, split='test')

train_dataloader = dict(dataset=dict(classes=classes, source=train_source, exclude=test_source))
val_dataloader = dict(dataset=dict(classes=classes, source=test_source))
test_dataloader = val_dataloader
