# SGD as the paper trains: learning rate 0.01, cosine annealing to 0 by epoch. The paper gives
# neither momentum nor weight decay. The files that inherit from this one say for how long.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0))
# It ends with the training: `T_max` is `max_epochs` unless it is given.
param_scheduler = dict(type='CosineAnnealingLR', by_epoch=True, eta_min=0.0)

train_cfg = dict(by_epoch=True)
val_cfg = dict()
test_cfg = dict()

# Of all processes together: tools/train.py divides `train_dataloader.batch_size` among them where
# it is this number. `--auto-scale-lr` is for another one.
total_batch_size = 128
auto_scale_lr = dict(base_batch_size=128)
