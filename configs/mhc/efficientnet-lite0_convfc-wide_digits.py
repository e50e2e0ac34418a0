_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_demo.py',
    '../_base_/default_runtime.py',
]

# 16 channels for each of the ten classes: the capacity of MultiConv.
model = dict(head=dict(type='ConvClsHead', conv_channels=160))
