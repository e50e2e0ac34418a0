# As long as the paper trains on spliced sets.
_base_ = './sgd.py'

train_cfg = dict(max_epochs=300, val_interval=10)
