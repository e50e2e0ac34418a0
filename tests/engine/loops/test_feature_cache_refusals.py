"""What the feature cache cannot do is refused with a sentence, before anything is computed."""

import pytest
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from tiny_cache_run import make_cfg, run

LINEAR = dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss'))


def refused(cfg, sentence):
    with pytest.raises(ValueError, match=sentence):
        run(cfg)


def test_mixup_is_refused(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.model.data_preprocessor.update(
        num_classes=4, batch_augments=dict(augments=dict(type='Mixup', alpha=0.8))
    )
    refused(cfg, 'Batch augmentations such as mixup mix images and cannot go')


def test_backbone_that_is_trained_is_refused(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.model.type = 'ImageClassifier'
    cfg.model.data_preprocessor.type = 'ClsDataPreprocessor'
    refused(cfg, 'needs a `FrozenBackboneClassifier`, .* but the model is a `ImageClassifier`')


def test_parameter_that_was_unfrozen_is_refused(images, tmp_path):
    runner = Runner.from_cfg(make_cfg(images, tmp_path / 'a'))
    runner.model.backbone.stages[1][0].weight.requires_grad_(True)
    with pytest.raises(ValueError, match="1 of its parameters are trained, 'stages"):
        runner.train()


def test_neck_that_is_trained_is_refused(images, tmp_path):
    neck = dict(type='LinearNeck', in_channels=12, out_channels=12)
    cfg = make_cfg(images, tmp_path / 'a', neck=neck, head=LINEAR)
    refused(cfg, 'needs a neck without parameters, but `LinearNeck` has some')


def test_test_time_augmentation_is_refused(images, tmp_path):
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.model = dict(type='MultiLabelScoreTTA', module=cfg.model)
    with pytest.raises(ValueError, match='Test-time augmentation needs images'):
        Runner.from_cfg(cfg).test()


def test_images_of_several_sizes_are_refused(images, tmp_path):
    cfg = make_cfg(
        images,
        tmp_path / 'a',
        transforms=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomResize', scale=(16, 16), ratio_range=(1, 2)),
            dict(type='PackInputs'),
        ],
    )
    refused(cfg, 'Expected images of one size, but image .* Resize or crop them in the pipeline')


def test_custom_collate_function_is_refused(images, tmp_path):
    from mmengine.registry import FUNCTIONS

    @FUNCTIONS.register_module(force=True)
    def my_collate(batch):
        return pseudo_collate(batch)

    cfg = make_cfg(images, tmp_path / 'a')
    cfg.train_dataloader.collate_fn = dict(type='my_collate')
    refused(cfg, 'needs `collate_fn` to be `default_collate` or `pseudo_collate`, but got `my_coll')


@pytest.mark.parametrize(
    ('option', 'sentence'),
    [
        (dict(views=0), 'Expected argument `views` to be an int of at least 1, but got 0.'),
        (dict(precision='fp16'), r"`precision` to be one of \('fp32', 'bf16'\), but got 'fp16'"),
        (dict(storage='bf16'), r"`storage` to be one of \('fp16', 'fp32'\), but got 'bf16'"),
        (dict(store='all'), r"`store` to be one of \('auto', 'maps'\), but got 'all'"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_at_the_door(images, tmp_path, option, sentence):
    refused(make_cfg(images, tmp_path / 'a', **option), sentence)


def test_features_that_float16_cannot_hold_are_refused(images, tmp_path):
    runner = Runner.from_cfg(make_cfg(images, tmp_path / 'a', storage='fp16'))
    runner.model.backbone.stages[1][1].bias.data.fill_(1e6)
    with pytest.raises(ValueError, match='Store float32 instead: `--storage fp32`'):
        runner.train()
