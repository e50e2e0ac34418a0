_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/combined1.py',
    '../_base_/schedules/sgd_300e.py',
    '../_base_/default_runtime.py',
]

# 16 channels for each of the ten classes: the capacity of MultiConv.
model = dict(head=dict(type='ConvClsHead', conv_channels=160))
