# The last two stages of the backbone.
_base_ = './swin-tiny.py'

model = dict(backbone=dict(out_indices=(2, 3)), head=dict(in_channels=(384, 768)))
