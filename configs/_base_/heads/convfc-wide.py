# ConvFC as wide as MultiConv: 16 channels for each of ten classes.
_base_ = './convfc.py'

head = dict(conv_channels=160)
