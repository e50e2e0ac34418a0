import numpy as np
import pytest
import torch
from mmpretrain import get_model

from mhc_plugin.apis import class_maps
from mhc_plugin.datasets.images import ImagePipeline
from mhc_plugin.utils.batch import Features


@pytest.fixture
def paths(tmp_path, make_image):
    return [str(make_image(tmp_path / f'{seed}.png', seed=seed)) for seed in range(3)]


@pytest.fixture
def inputs(tiny_model, tiny_cfg, paths):
    pipeline = ImagePipeline(tiny_cfg)
    return tiny_model.data_preprocessor(
        dict(inputs=[pipeline(path)['inputs'] for path in paths]), False
    )['inputs']


def test_tensors_paths_arrays_and_features_give_the_same_maps(tiny_model, paths, inputs):
    import cv2

    maps = class_maps(tiny_model, inputs)
    assert maps.shape == (3, 10, 4, 4)
    assert maps.min() == 0
    assert maps.max() > 0
    torch.testing.assert_close(class_maps(tiny_model, paths), maps)
    torch.testing.assert_close(class_maps(tiny_model, [cv2.imread(path) for path in paths]), maps)
    with torch.no_grad():
        feats = tiny_model.extract_feat(inputs)
    torch.testing.assert_close(class_maps(tiny_model, Features(feats)), maps)


def test_maps_are_the_linear_heads_own(tiny_model, inputs):
    with torch.no_grad():
        x = tiny_model.extract_feat(inputs)[-1]
        expected = torch.einsum('kc,nchw->nkhw', tiny_model.head.fc.weight[:, 0], x).clamp(min=0)
    torch.testing.assert_close(class_maps(tiny_model, inputs), expected)


def test_classes_by_index_and_name_in_order(tiny_model, inputs):
    maps = class_maps(tiny_model, inputs)
    torch.testing.assert_close(
        class_maps(tiny_model, inputs, ['7', 2, np.int64(0)]), maps[:, [7, 2, 0]]
    )


def test_every_method_gives_maps_of_all_classes(tiny_model, inputs):
    torch.testing.assert_close(
        class_maps(tiny_model, inputs, method='GradCAM') * 16, class_maps(tiny_model, inputs)
    )


def test_model_in_training_is_given_back(tiny_model, inputs):
    tiny_model.train()
    before = class_maps(tiny_model, inputs)
    assert tiny_model.head.training
    tiny_model.eval()
    torch.testing.assert_close(class_maps(tiny_model, inputs), before)


def test_unknown_method(tiny_model, inputs):
    with pytest.raises(ValueError, match=r"'inherent' or one of .* but got 'nothing'"):
        class_maps(tiny_model, inputs, method='nothing')


@pytest.mark.parametrize('method', ['inherent', 'LayerCAM'])
def test_plain_mmpretrain_model(paths, method):
    model = get_model('resnet18_8xb16_cifar10', pretrained=False)
    maps = class_maps(model, paths[:1], ['cat'], method)
    assert maps.shape[:2] == (1, 1)


@pytest.mark.parametrize('item', ['cat', 10, -1, 1.5])
def test_unknown_classes(tiny_model, inputs, item):
    with pytest.raises(ValueError, match=r"indices below 10 or names of \['0', .*but got"):
        class_maps(tiny_model, inputs, [item])


def test_paths_need_a_config(tiny_model, paths):
    del tiny_model._config
    with pytest.raises(ValueError, match=r'knows its config .*mhc_plugin\.apis\.load_model'):
        class_maps(tiny_model, paths)


def test_images_of_different_sizes(tiny_model, tmp_path, make_image):
    tiny_model._config.test_dataloader.dataset.pipeline[0] = dict(type='LoadImageFromFile')
    paths = [str(make_image(tmp_path / f'{n}.png', size=(n, n))) for n in (32, 64)]
    with pytest.raises(ValueError, match=r'one size .* sizes \[\(2, 2\), \(4, 4\)\]'):
        class_maps(tiny_model, paths)
