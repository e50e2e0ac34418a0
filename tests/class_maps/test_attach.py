import pytest
import torch
from mmpretrain.structures import DataSample
from torch import nn

from mhc_plugin.class_maps import class_maps_of, inherent_maps, predictions_with_maps
from mhc_plugin.utils.batch import Features


def batch_of(images):
    return dict(inputs=images, data_samples=[DataSample() for _ in images])


def test_predictions_carry_maps_of_one_pass(build, images):
    model = build()
    passes = []
    model.backbone.register_forward_hook(lambda *args: passes.append(1))
    plain = model.test_step(batch_of(images))
    with predictions_with_maps(model):
        samples = model.test_step(batch_of(images))
    assert len(passes) == 2
    with torch.no_grad():
        maps = inherent_maps(model, model.extract_feat(images, stage='backbone'))
    for sample, plain_sample, sample_maps in zip(samples, plain, maps):
        assert torch.equal(sample.pred_cam, sample_maps)
        assert torch.equal(sample.pred_score, plain_sample.pred_score)
        assert sample.to_dict()['pred_cam'].shape == (5, 3, 3)


def test_backbone_that_runs_in_parts(build, images, monkeypatch):
    """And what the backbone does outside the model does not get in between."""
    model = build()
    expected = class_maps_of(model, images)

    def extract_in_parts(inputs, stage='neck'):
        parts = [model.backbone(part) for part in inputs.split(2)]
        return model.neck(tuple(torch.cat(feats) for feats in zip(*parts)))

    monkeypatch.setattr(model, 'extract_feat', extract_in_parts)
    with predictions_with_maps(model):
        model.backbone(images)
        samples = model.test_step(batch_of(images))
    torch.testing.assert_close(torch.stack([s.pred_cam for s in samples]), expected)


def test_wrapped_model_predicts_maps(build, images):
    model = nn.DataParallel(build())
    with predictions_with_maps(model, classes=[1]):
        samples = model.module.test_step(batch_of(images))
    assert samples[0].pred_cam.shape == (1, 3, 3)


def test_post_hoc_methods_serve_as_well(build, images):
    model = build()
    with predictions_with_maps(model, 'GradCAM'), torch.no_grad():
        samples = model.test_step(batch_of(images))
    expected = class_maps_of(model, images, 'inherent') / 9
    torch.testing.assert_close(torch.stack([s.pred_cam for s in samples]), expected)


def test_other_modes_are_left_alone(build, images):
    model = build()
    with predictions_with_maps(model):
        assert isinstance(model(images), torch.Tensor)
        samples = batch_of(images)['data_samples']
        for sample in samples:
            sample.set_gt_score(torch.zeros(5))
        assert set(model(images, samples, mode='loss')) == {'loss'}
        assert 'pred_cam' not in samples[0]
        assert 'pred_cam' in model(images, samples, 'predict')[0]


def test_hooks_go_also_after_an_error(build, images):
    model = build()
    with pytest.raises(RuntimeError):
        with predictions_with_maps(model):
            raise RuntimeError
    assert 'pred_cam' not in model.test_step(batch_of(images))[0]
    assert not model._forward_hooks
    assert not model.backbone._forward_hooks


def test_unknown_method_is_refused_at_the_door(build):
    with pytest.raises(ValueError, match=r"'inherent' or one of AblationCAM, .*but got 'Grad'"):
        with predictions_with_maps(build(), 'Grad'):
            pass


def test_features_give_inherent_maps_only(build, images):
    model = build()
    with torch.no_grad():
        feats = model.extract_feat(images, stage='backbone')
    feats = Features(feats)
    assert torch.equal(class_maps_of(model, feats), class_maps_of(model, images))
    with pytest.raises(ValueError, match="Expected images for class maps by 'GradCAM', but got"):
        class_maps_of(model, feats, 'GradCAM')
