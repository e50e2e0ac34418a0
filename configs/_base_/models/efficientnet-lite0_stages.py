# The last two stages of the backbone.
_base_ = './efficientnet-lite0.py'

model = dict(
    backbone=dict(features_only=True, out_indices=(3, 4)), head=dict(in_channels=(112, 320))
)
