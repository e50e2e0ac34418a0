_base_ = [
    '../_base_/models/vgg19.py',
    '../_base_/datasets/voc.py',
    '../_base_/schedules/sgd_1000e.py',
    '../_base_/default_runtime.py',
]

# 16 channels for each of the ten classes: the capacity of MultiConv.
model = dict(head=dict(type='ConvClsHead', conv_channels=160))
