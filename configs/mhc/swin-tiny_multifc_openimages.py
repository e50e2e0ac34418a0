_base_ = [
    '../_base_/models/swin-tiny.py',
    '../_base_/datasets/openimages.py',
    '../_base_/schedules/sgd_1000e.py',
    '../_base_/default_runtime.py',
]
