# MultiConv on slices: each head sees its share of the channels.
_base_ = './multiconv.py'

head = dict(connection='channels')
