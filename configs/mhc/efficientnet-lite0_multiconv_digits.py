_base_ = [
    '../_base_/models/efficientnet-lite0.py',
    '../_base_/datasets/digits.py',
    '../_base_/schedules/sgd_demo.py',
    '../_base_/default_runtime.py',
]

model = dict(head=dict(type='ConvMultiHeadClsHead'))
