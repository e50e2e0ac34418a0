_base_ = [
    '../_base_/models/vgg19.py',
    '../_base_/heads/multiatt.py',
    '../_base_/datasets/openimages.py',
    '../_base_/schedules/sgd_decay_30e.py',
    '../_base_/default_runtime.py',
]
model = dict(neck=_base_.neck, head=dict(_base_.head, num_classes=_base_.num_classes))
