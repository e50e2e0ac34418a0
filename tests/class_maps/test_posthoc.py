import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS
from test_inherent import TwoStageHead
from test_state import assert_same, describe

from mhc_plugin.class_maps import find_method, posthoc_maps, posthoc_methods
from mhc_plugin.class_maps.posthoc import TappedClassifier

pytorch_grad_cam = pytest.importorskip('pytorch_grad_cam', reason='needs grad-cam')
scale_cam_image = pytorch_grad_cam.utils.image.scale_cam_image
ClassifierOutputTarget = pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget

# Methods that go through one target layer's image and change nothing at random.
STEADY = sorted(set(posthoc_methods()) - {'RandomCAM'})


def library_maps(model, layer, images, method, index, reshape_transform=None):
    """Maps (N, H, W) of the library's own call on the plain model."""
    cam = posthoc_methods()[method](model, [layer], reshape_transform=reshape_transform)
    return cam(images.clone().requires_grad_(), [ClassifierOutputTarget(index)] * len(images))


def scaled(maps, size):
    """The library's own scaling: to the input's size, and once more without."""
    return scale_cam_image(scale_cam_image(maps.numpy(), size))


def assert_equals_library(model, layer, images, method, index, reshape_transform=None):
    ours = posthoc_maps(model, images, method, [index])[:, 0]
    theirs = library_maps(model, layer, images, method, index, reshape_transform)
    assert ours.min() >= 0
    np.testing.assert_allclose(scaled(ours, images.shape[:1:-1]), theirs, atol=1e-4)


def test_methods_are_those_that_make_one_image_per_layer():
    assert set(posthoc_methods()) >= {
        'GradCAM',
        'GradCAMPlusPlus',
        'LayerCAM',
        'ScoreCAM',
        'EigenCAM',
        'XGradCAM',
        'HiResCAM',
        'AblationCAM',
        'ShapleyCAM',
    }
    assert not set(posthoc_methods()) & {'BaseCAM', 'FullGrad', 'FinerCAM', 'RefineCAM', 'SESS'}


@pytest.mark.parametrize('name', ['GradCAM++', 'gradcamplusplus', 'GradCAMPlusPlus'])
def test_methods_are_found_by_the_usual_names(name):
    assert find_method(name) is pytorch_grad_cam.GradCAMPlusPlus


def test_unknown_method_lists_the_known_ones():
    with pytest.raises(ValueError, match=r'Expected argument `method`') as error:
        find_method('FullGrad')
    sentence = str(error.value)
    assert all(name in sentence for name in posthoc_methods())
    assert sentence.endswith("but got 'FullGrad'.")


@pytest.mark.parametrize('method', STEADY)
def test_maps_equal_the_library_with_linear_head(build, images, method):
    model = build()
    assert_equals_library(model, model.backbone.layer4, images, method, 3)


@pytest.mark.parametrize('method', sorted(set(STEADY) - {'AblationCAM', 'ScoreCAM'}))
def test_maps_equal_the_library_with_other_heads(build, images, method):
    model = build(
        head=dict(type='CSRAClsHead', num_classes=5, in_channels=64, num_heads=2, lam=0.5),
        neck=None,
    )
    assert_equals_library(model, model.backbone.layer4, images, method, 2)


@pytest.mark.parametrize('method', ['GradCAM', 'LayerCAM', 'ShapleyCAM', 'EigenCAM'])
def test_frozen_model_gives_the_same_maps(build, images, method):
    model = build()
    expected = posthoc_maps(model, images, method)
    model.requires_grad_(False)
    torch.testing.assert_close(posthoc_maps(model, images, method), expected)


def test_classes_come_in_order_and_in_one_backbone_pass(build, images):
    model = build()
    maps = posthoc_maps(model, images, 'LayerCAM')
    passes = []
    model.backbone.register_forward_hook(lambda module, args, output: passes.append(len(args[0])))
    torch.testing.assert_close(posthoc_maps(model, images, 'LayerCAM', [4, 1]), maps[:, [4, 1]])
    # One image to see which stages feed the head, then the batch.
    assert passes == [1, 3]
    assert maps.shape == (3, 5, 3, 3)
    assert maps.dtype == torch.float32


def test_images_of_several_stages_are_added(build, images):
    model = build(head=TwoStageHead(), neck=None, backbone=dict(out_indices=(2, 3)))
    with torch.no_grad():
        fine, coarse = model.extract_feat(images, stage='backbone')
    maps = posthoc_maps(model, images, 'GradCAM')
    assert maps.shape == (3, 4, 6, 6)
    # Class 2 is linear in the fine stage, class 0 sees the coarse one alone.
    by_hand = torch.einsum('c,nchw->nhw', model.head.fine.weight[0], fine).clamp(min=0) / 36
    torch.testing.assert_close(maps[:, 2], by_hand.detach())
    weights = 2 * coarse.mean((2, 3)) * model.head.coarse.weight[0] / 9
    by_hand = torch.einsum('nc,nchw->nhw', weights, coarse).clamp(min=0)
    by_hand = torch.nn.functional.interpolate(by_hand[:, None], size=(6, 6), mode='bilinear')
    torch.testing.assert_close(maps[:, 0], by_hand[:, 0].detach())


def test_random_method_runs(build, images):
    np.random.seed(0)
    assert posthoc_maps(build(), images, 'RandomCAM').shape == (3, 5, 3, 3)


@pytest.mark.parametrize('method', ['GradCAM', 'ScoreCAM', 'AblationCAM', 'ShapleyCAM'])
def test_model_is_left_as_found(build, images, method):
    model = build(backbone=dict(frozen_stages=1))
    model.train()
    model.head.fc.weight.grad = torch.ones_like(model.head.fc.weight)
    before, state = describe(model), {k: v.clone() for k, v in model.state_dict().items()}
    modules = [id(module) for module in model.modules()]
    posthoc_maps(model, images[:1], method, [0])
    assert_same(before, describe(model))
    assert modules == [id(module) for module in model.modules()]
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_model_is_left_as_found_after_an_error(build, images, monkeypatch):
    model = build()
    model.train()
    before = describe(model)

    def fail(*args, **kwargs):
        # The library's own context manager would swallow this very class.
        raise IndexError('inside the method')

    monkeypatch.setattr(pytorch_grad_cam.GradCAM, 'get_cam_weights', fail)
    with pytest.raises(IndexError, match='inside the method'):
        posthoc_maps(model, images, 'GradCAM')
    assert_same(before, describe(model))


def test_backbone_without_maps_is_refused(images):
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(
                type='VisionTransformer',
                img_size=32,
                patch_size=16,
                arch=dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16),
            ),
            head=dict(type='MultiLabelLinearClsHead', num_classes=2, in_channels=16),
        )
    )
    with pytest.raises(ValueError, match=r'features of the backbone to be maps .*\[\(1, 16\)\]'):
        posthoc_maps(model, images[:, :, :32, :32], 'GradCAM')


SWIN = dict(type='SwinTransformer', arch='tiny', img_size=64, window_size=2)


@pytest.mark.parametrize(
    ('backbone', 'channels', 'layer'),
    [
        (dict(type='SEResNet', depth=50), 2048, 'layer4'),
        (dict(type='VGG', depth=19), 512, 'features.20'),
        (SWIN, 768, 'norm3'),
        (
            dict(
                type='TIMMBackbone',
                model_name='tf_efficientnet_lite0',
                features_only=False,
                num_classes=0,
                global_pool='',
            ),
            1280,
            'timm_model.bn2',
        ),
    ],
)
@pytest.mark.parametrize('method', ['GradCAM', 'LayerCAM'])
def test_target_layers_of_the_backbones(backbone, channels, layer, method):
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=channels),
        )
    )
    model.init_weights()
    model.eval()
    images = torch.randn(2, 3, 64, 64)

    def reshape_transform(tokens):
        return tokens.transpose(1, 2).unflatten(2, (2, 2))

    layer = model.backbone.get_submodule(layer)
    assert_equals_library(
        model, layer, images, method, 1, reshape_transform if backbone is SWIN else None
    )


def test_taps_stand_behind_gate_and_residual(images):
    """What a tap sees is what the whole last block of the backbone gives."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='SEResNet', depth=50, stem_channels=8, base_channels=16),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=512),
        )
    )
    model.eval()
    seen = []
    model.backbone.layer4[-1].register_forward_hook(lambda *args: seen.append(args[-1].clone()))
    tapped = TappedClassifier(model, images)
    tapped.taps[0].register_forward_hook(lambda *args: seen.append(args[-1]))
    with torch.no_grad():
        tapped(images)
    assert torch.equal(seen[-1], seen[-2])
