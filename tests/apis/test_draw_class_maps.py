import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mhc_plugin.apis import MultiLabelInferencer, class_maps, draw_class_maps
from mhc_plugin.datasets.images import ImagePipeline, dataset_with_test_pipeline


@pytest.fixture
def paths(tmp_path, make_image):
    return [str(make_image(tmp_path / f'{seed}.png', seed=seed)) for seed in range(3)]


@pytest.fixture
def items(tiny_cfg, paths):
    return list(map(ImagePipeline(tiny_cfg), paths))


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the panels, whose drawing takes long."""
    calls = []

    def draw_panel(*args):
        calls.append(args)
        return np.zeros((400, 400, 3), np.uint8)

    # The package's attribute of this name is the function.
    monkeypatch.setattr(sys.modules['mhc_plugin.apis.class_maps'], 'draw_panel', draw_panel)
    return calls


def test_panels_and_raw_maps_are_written(tiny_model, items, paths, tmp_path, drawn):
    inferencer = MultiLabelInferencer(tiny_model)
    out = tmp_path / 'new/out'
    written = list(draw_class_maps(dict(a=inferencer), items, out, npz=True, batch_size=2, topk=3))
    assert [path.name for path in written] == ['00000_0.png', '00001_1.png', '00002_2.png']
    maps = class_maps(tiny_model, paths).numpy()
    for index, path in enumerate(written):
        raw = np.load(path.with_suffix('.npz'))
        np.testing.assert_allclose(raw['maps_0'], maps[index], rtol=1e-5, atol=1e-6)
        assert raw['classes'].tolist() == inferencer.classes
        assert raw['models'].tolist() == ['a']
        image, (view,), _, truth, title = drawn[index]
        np.testing.assert_array_equal(
            image, items[index]['inputs'].flip(0).permute(1, 2, 0).numpy()
        )
        np.testing.assert_allclose(view.scores, raw['scores_0'])
        assert view.predicted.sum() == 3
        assert truth is None
        assert title == str(index)


def test_chosen_classes_in_order(tiny_model, items, tmp_path, drawn):
    inferencer = MultiLabelInferencer(tiny_model)
    list(
        draw_class_maps(dict(a=inferencer), items[:1], tmp_path, classes=['7', 2], method='GradCAM')
    )
    _, (view,), names, _, _ = drawn[0]
    assert names == ['7', '2']
    assert view.maps.shape == (2, 4, 4)
    scores = inferencer([items[0]['data_samples'].img_path])[0]['pred_scores']
    np.testing.assert_allclose(view.scores, scores[[7, 2]], atol=1e-6)


def test_two_models_see_the_same_images(tiny_model, tiny_cfg, items, tmp_path, drawn):
    models = dict(
        trained=MultiLabelInferencer(tiny_model), untrained=MultiLabelInferencer(tiny_cfg)
    )
    written = list(draw_class_maps(models, items, tmp_path, npz=True))
    first, second = drawn[0][1]
    assert (first.title, second.title) == ('trained', 'untrained')
    assert not np.allclose(first.maps, second.maps)
    alone = list(
        draw_class_maps(dict(untrained=models['untrained']), items, tmp_path / 'alone', npz=True)
    )
    np.testing.assert_allclose(
        np.load(written[2].with_suffix('.npz'))['maps_1'],
        np.load(alone[2].with_suffix('.npz'))['maps_0'],
        rtol=1e-5,
        atol=1e-6,
    )


def test_models_of_different_classes_do_not_stand_side_by_side(tiny_model, items, tmp_path):
    models = dict(
        a=MultiLabelInferencer(tiny_model),
        b=MultiLabelInferencer(tiny_model, classes=list('abcdefghij')),
    )
    with pytest.raises(ValueError, match=r"same classes, but b has \['a', "):
        list(draw_class_maps(models, items, tmp_path))


def test_data_sets_show_the_truth(tiny_model, tiny_cfg, tmp_path, drawn):
    dataset = dataset_with_test_pipeline(tiny_cfg, 'test')
    items = [dataset[0], dataset[1]]
    list(draw_class_maps(dict(a=MultiLabelInferencer(tiny_model)), items, tmp_path, classes=[0, 3]))
    expected = items[1]['data_samples'].gt_score[[0, 3]].numpy()
    np.testing.assert_array_equal(drawn[1][3], expected)


def test_data_set_of_training_is_prepared_as_for_testing(tiny_cfg):
    tiny_cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=tiny_cfg.train_dataloader.dataset
    )
    inner = tiny_cfg.train_dataloader.dataset.dataset
    inner.pipeline = [
        dict(type='ComposeTiles'),
        dict(type='RandomFlip', prob=1.0),
        dict(type='PackInputs'),
    ]
    dataset = dataset_with_test_pipeline(tiny_cfg, 'train')
    assert len(dataset) == 32
    assert 'gt_cells' in dataset[0]['data_samples']
    assert not dataset[0]['data_samples'].get('flip')
    assert len(inner.pipeline) == 3


def test_split_that_is_missing(tiny_cfg):
    tiny_cfg.val_dataloader = None
    with pytest.raises(ValueError, match='have a `val_dataloader` with a data set'):
        dataset_with_test_pipeline(tiny_cfg, 'val')


def test_gradients_stay_off_and_a_picture_comes_out(tiny_model, items, tmp_path):
    (path,) = draw_class_maps(dict(a=MultiLabelInferencer(tiny_model)), items[:1], tmp_path)
    assert Image.open(path).size[0] > 400
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
