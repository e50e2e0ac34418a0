# MultiFC on slices: each head sees its share of the channels.
_base_ = './multifc.py'

head = dict(connection='channels')
