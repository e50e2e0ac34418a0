# What every config shares: MMPretrain's runtime, a seed, and epochs that can be repeated.
default_scope = 'mmpretrain'
custom_imports = dict(imports=['mhc_plugin'], allow_failed_imports=False)

# Hooks have names here, so that a config with `custom_hooks` of its own keeps them.
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Two, since a run that is killed while it writes one must find another. No `save_best`: the
    # data sets have a training and a test part only, and the best epoch of a test is not a result.
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=2),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    # A resumed run repeats the uninterrupted one.
    reproducible_epoch=dict(type='ReproducibleEpochHook'),
    # Batch statistics of trained parts agree between processes.
    sync_trained_buffers=dict(type='SyncTrainedBuffersHook'),
    # A loss that is no number ends the run; action='warn' goes on.
    finite_loss=dict(type='FiniteLossHook'),
    # Data, model and the checkpoint that is tested or resumed belong together.
    matching_checkpoint=dict(type='MatchingCheckpointHook'),
    # A resumed run follows its own schedule, and deletes files of its own alone.
    resume=dict(type='ResumeHook'),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

visualizer = dict(type='UniversalVisualizer', vis_backends=[dict(type='LocalVisBackend')])

randomness = dict(seed=0)
log_level = 'INFO'
load_from = None
resume = False
