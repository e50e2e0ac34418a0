# Shortened for the demo.
_base_ = './sgd.py'

train_cfg = dict(max_epochs=10, val_interval=1)
