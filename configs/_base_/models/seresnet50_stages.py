# The last two stages of the backbone.
_base_ = './seresnet50.py'

model = dict(backbone=dict(out_indices=(2, 3)), head=dict(in_channels=(1024, 2048)))
