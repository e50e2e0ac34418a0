_base_ = [
    '../_base_/models/vgg19.py',
    '../_base_/datasets/combined1.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(type='ConvClsHead'))
