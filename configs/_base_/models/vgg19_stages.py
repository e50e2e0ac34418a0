# The last two stages of the backbone.
_base_ = './vgg19.py'

model = dict(backbone=dict(out_indices=(3, 4)), head=dict(in_channels=(512, 512)))
