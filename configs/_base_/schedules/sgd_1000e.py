# As long as the paper trains on VOC and OpenImages.
_base_ = './sgd.py'

train_cfg = dict(max_epochs=1000, val_interval=50)
