# For the attention head: weights decay, biases and the sharpness of an attention do not.
_base_ = './sgd.py'

optim_wrapper = dict(
    # MMEngine's own warns of every frozen parameter.
    constructor='TrainedOptimWrapperConstructor',
    optimizer=dict(weight_decay=0.03),
    paramwise_cfg=dict(
        custom_keys={'bias': dict(decay_mult=0.0), 'sharpness': dict(decay_mult=0.0)}
    ),
)
train_cfg = dict(max_epochs=30, val_interval=10)
