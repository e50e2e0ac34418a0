import json
import sys

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from mhc_plugin.apis import class_maps, load_model
from mhc_plugin.apis import export as export_module
from mhc_plugin.apis.export import export_onnx
from mhc_plugin.datasets.images import test_image_size as find_image_size

onnxruntime = pytest.importorskip('onnxruntime', reason='needs onnxruntime')

SIZE = (64, 64)
MULTIFC = dict(type='MultiHeadClsHead', num_classes=10, in_channels=64)
ATTENTION = dict(type='AttentionMultiHeadClsHead', num_classes=10, in_channels=64)
CONV = dict(type='ConvMultiHeadClsHead', num_classes=10, in_channels=64, conv_channels=4)


def pixels(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 3, *SIZE)).astype(np.float32)


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return session, session.run(None, dict(images=images))


def expected_scores(model, images):
    # The preprocessor turns BGR into RGB, and the graph takes RGB.
    inputs = model.data_preprocessor(dict(inputs=torch.from_numpy(images).flip(1)))['inputs']
    with torch.no_grad():
        return inputs, model(inputs).sigmoid().numpy()


@pytest.mark.parametrize(
    'options',
    [
        dict(head=dict(MULTIFC, pool='lse', hidden_channels=(8,))),
        dict(head=dict(MULTIFC, pool='max', head_groups=[[9, 3], [0, 1, 2, 4, 5, 6, 7, 8]])),
        dict(
            head=dict(CONV, in_channels=(32, 64), connection='stages', head_stages=[0, 1] * 5),
            out_indices=(2, 3),
        ),
        dict(head=dict(type='ConvClsHead', num_classes=10, in_channels=64, conv_channels=4)),
        dict(
            head=dict(
                ATTENTION,
                in_channels=(32, 64),
                connection='stages',
                head_stages=[0, 1] * 5,
                normalize='image',
            ),
            out_indices=(2, 3),
        ),
        dict(
            head=dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64),
            neck=dict(type='GlobalAveragePooling'),
        ),
    ],
)
def test_scores_and_maps_of_any_batch(tiny_cfg, tmp_path, options):
    tiny_cfg.model.head = options['head']
    tiny_cfg.model.neck = options.get('neck')
    tiny_cfg.model.backbone.out_indices = options.get('out_indices', (3,))
    model = load_model(tiny_cfg, device='cpu')
    torch.manual_seed(0)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    path = tmp_path / 'new/model.onnx'
    assert export_onnx(model, path, SIZE, with_maps=True) < 1e-4
    for count in (1, 5):
        images = pixels(count, seed=count)
        inputs, scores = expected_scores(model, images)
        _, (actual_scores, actual_maps) = run(path, images)
        np.testing.assert_allclose(actual_scores, scores, atol=1e-4)
        maps = class_maps(model, inputs).numpy()
        np.testing.assert_allclose(actual_maps, maps, atol=1e-4 * max(1, maps.max()))


def test_file_says_what_it_is_and_the_model_is_left_as_it_was(tiny_model, tmp_path):
    tiny_model._dataset_meta['thresholds'] = [0.25] * 10
    tiny_model.train()
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    export_onnx(tiny_model, tmp_path / 'model.onnx', SIZE)
    assert tiny_model.head.training
    assert all(torch.equal(before[name], v) for name, v in tiny_model.state_dict().items())
    session, outputs = run(tmp_path / 'model.onnx', pixels(2))
    assert len(outputs) == 1
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta['classes']) == [str(digit) for digit in range(10)]
    assert json.loads(meta['thresholds']) == [0.25] * 10
    assert meta['channels'] == 'RGB'
    assert session.get_inputs()[0].shape[1:] == [3, *SIZE]
    assert isinstance(session.get_inputs()[0].shape[0], str)


def test_single_label_head_gives_softmax(tiny_cfg, tmp_path):
    tiny_cfg.model.neck = dict(type='GlobalAveragePooling')
    tiny_cfg.model.head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    export_onnx(load_model(tiny_cfg, device='cpu'), tmp_path / 'model.onnx', SIZE, with_maps=True)
    _, (scores, _) = run(tmp_path / 'model.onnx', pixels(2))
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-5)


def test_maps_without_closed_form_are_refused_in_one_sentence(tiny_cfg, tmp_path):
    tiny_cfg.model.head = dict(
        type='CSRAClsHead', num_classes=10, in_channels=64, num_heads=1, lam=0.1
    )
    with pytest.raises(ValueError, match=r'`CSRAClsHead` behind this neck have no closed form'):
        export_onnx(load_model(tiny_cfg, device='cpu'), tmp_path / 'a.onnx', SIZE, with_maps=True)


def test_export_that_differs_is_not_written(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, 'TOLERANCE', -1.0)
    with pytest.raises(RuntimeError, match=r'differs from PyTorch by .* was not written'):
        export_onnx(tiny_model, tmp_path / 'model.onnx', SIZE)
    assert not (tmp_path / 'model.onnx').exists()


def test_scores_that_are_nan_are_not_exported(tiny_model, tmp_path):
    torch.nn.init.constant_(tiny_model.head.fc.weight, float('nan'))
    with pytest.raises(ValueError, match='`scores` to hold no NaN'):
        export_onnx(tiny_model, tmp_path / 'model.onnx', SIZE)
    assert not (tmp_path / 'model.onnx').exists()


@pytest.mark.cuda
@pytest.mark.parametrize('normalises', [True, False])
def test_model_on_a_gpu_is_exported_and_stays_there(tiny_cfg, tmp_path, normalises):
    if not normalises:
        tiny_cfg.data_preprocessor = dict(to_rgb=True)
    model = load_model(tiny_cfg, device='cuda')
    # TF32 on the GPU is no reason to refuse an export.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    assert export_onnx(model, tmp_path / 'model.onnx', SIZE, with_maps=True) < 1e-4
    assert all(parameter.is_cuda for parameter in model.parameters())


def test_missing_packages_are_named(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ImportError, match=r'needs onnxruntime: pip install "mhc_plugin\[export\]"'):
        export_onnx(tiny_model, tmp_path / 'model.onnx', SIZE)


def test_image_size_is_that_of_the_pipeline(tiny_cfg):
    assert find_image_size(tiny_cfg) == (64, 64)


@pytest.mark.slow
def test_swin_with_an_open_batch(tmp_path):
    torch.manual_seed(0)
    arch = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 2])
    model = MODELS.build(
        dict(
            type='FrozenBackboneClassifier',
            backbone=dict(
                type='SwinTransformer', arch=arch, img_size=64, out_indices=(1,), window_size=4
            ),
            head=dict(type='MultiHeadClsHead', num_classes=10, in_channels=32),
        )
    )
    model.eval()
    assert export_onnx(model, tmp_path / 'swin.onnx', SIZE, with_maps=True) < 1e-4
