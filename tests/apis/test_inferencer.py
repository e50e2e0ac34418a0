import gc
import weakref

import numpy as np
import pytest
import torch
from mmpretrain.structures import DataSample
from PIL import Image

from mhc_plugin.apis import MultiLabelInferencer, class_maps, load_model
from mhc_plugin.functional.thresholds import predicted_mask


@pytest.fixture
def paths(tmp_path, make_image):
    return [str(make_image(tmp_path / f'photos/{seed}.png', seed=seed)) for seed in range(5)]


@pytest.fixture
def inferencer(tiny_model):
    return MultiLabelInferencer(tiny_model)


def scores_of(results):
    return torch.from_numpy(np.stack([result['pred_scores'] for result in results]))


def test_every_kind_of_input_gives_the_same(inferencer, paths, tmp_path):
    import cv2

    by_list = inferencer(paths)
    folder = tmp_path / 'photos'
    for inputs in (str(folder), f'{folder}/*.png', [cv2.imread(path) for path in paths]):
        np.testing.assert_allclose(scores_of(inferencer(inputs)), scores_of(by_list), atol=1e-6)
    assert [result['img_path'] for result in by_list] == paths
    assert inferencer(paths[0])[0].keys() == {'img_path', 'pred_scores', 'pred_label', 'pred_class'}


def test_batch_size_changes_nothing(inferencer, paths):
    np.testing.assert_allclose(
        scores_of(inferencer(paths, batch_size=2)), scores_of(inferencer(paths)), atol=1e-6
    )


@pytest.mark.parametrize(
    'rule', [dict(thr=0.4), dict(thr=np.linspace(0.1, 0.9, 10).tolist()), dict(topk=3)]
)
def test_labels_follow_the_rule_best_first(tiny_model, inferencer, paths, rule):
    results = inferencer(paths, **rule)
    expected = predicted_mask(scores_of(results), **rule)
    for result, mask in zip(results, expected):
        labels = result['pred_label']
        assert sorted(labels) == mask.nonzero()[:, 0].tolist()
        assert labels == sorted(labels, key=lambda label: -result['pred_scores'][label])
        assert result['pred_class'] == [str(label) for label in labels]
    by_constructor = MultiLabelInferencer(tiny_model, **rule)(paths)
    assert [r['pred_label'] for r in by_constructor] == [r['pred_label'] for r in results]


def test_rule_of_the_head_then_of_the_checkpoint(tiny_model):
    assert (MultiLabelInferencer(tiny_model).thr, MultiLabelInferencer(tiny_model).topk) == (
        0.5,
        None,
    )
    tiny_model.head.thr, tiny_model.head.topk = None, 4
    assert MultiLabelInferencer(tiny_model).topk == 4
    tiny_model._dataset_meta['thresholds'] = [0.1] * 10
    inferencer = MultiLabelInferencer(tiny_model)
    assert (inferencer.thr, inferencer.topk) == ([0.1] * 10, None)
    assert MultiLabelInferencer(tiny_model, topk=2).topk == 2


def test_single_label_head_gets_a_threshold(tiny_cfg):
    tiny_cfg.model.neck = dict(type='GlobalAveragePooling')
    tiny_cfg.model.head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    assert MultiLabelInferencer(tiny_cfg).thr == 0.5


def test_config_and_checkpoint_and_names(tiny_cfg, tiny_checkpoint, tiny_model, paths, tmp_path):
    expected = scores_of(MultiLabelInferencer(tiny_model)(paths))
    inferencer = MultiLabelInferencer(tiny_cfg, tiny_checkpoint)
    torch.testing.assert_close(scores_of(inferencer(paths)), expected)
    assert (
        MultiLabelInferencer(tiny_cfg, tiny_checkpoint, classes=list('abcdefghij'), topk=1)(
            paths[0]
        )[0]['pred_class'][0]
        in 'abcdefghij'
    )
    tiny_cfg.dump(tmp_path / 'config.py')
    from_file = MultiLabelInferencer(str(tmp_path / 'config.py'), tiny_checkpoint)
    torch.testing.assert_close(scores_of(from_file(paths)), expected)
    with pytest.raises(FileNotFoundError, match='There is no config efficientnet-lite9'):
        MultiLabelInferencer('efficientnet-lite9_multifc_voc')


def test_unreadable_images_are_reported_and_the_rest_goes_on(inferencer, paths, tmp_path):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'no image')
    inputs = ['missing.png', paths[0], str(broken), np.zeros((3, 3)), *paths[1:], 'gone.png']
    results = inferencer(inputs, batch_size=2)
    assert [result['img_path'] for result in results] == [
        'missing.png',
        paths[0],
        str(broken),
        None,
        *paths[1:],
        'gone.png',
    ]
    assert results[0] == dict(img_path='missing.png', error='There is no image file missing.png.')
    assert results[2]['error'] == f'{broken} cannot be read as an image.'
    assert 'uint8 array' in results[3]['error']
    torch.testing.assert_close(
        scores_of([results[1], *results[4:-1]]), scores_of(inferencer(paths))
    )
    assert inferencer('missing.png')[0]['error']


def test_results_come_one_by_one_and_nothing_of_them_is_kept(inferencer, paths):
    read, alive, maps = [], [], []
    pipeline = inferencer.pipeline
    inferencer.pipeline = lambda image: read.append(image) or pipeline(image)
    stream = inferencer.predict_each(['gone.png', *(6 * paths), 'gone.png'], True, 2, maps=True)
    for number, sample in enumerate(stream):
        # A batch, and the image behind it, which tells that the batch is full.
        assert len(read) <= 2 * (number // 2) + 6
        if 'pred_cam' in sample:
            alive.append(weakref.ref(sample.pred_cam))
            maps.append(sample.pred_cam.shape)
        assert not inferencer.model._forward_hooks
        del sample
        gc.collect()
        assert sum(ref() is not None for ref in alive) <= 2
    assert number == 31
    assert len(maps) == 30


def test_scores_that_are_nan_are_no_prediction(tiny_model, inferencer, paths):
    torch.nn.init.constant_(tiny_model.head.fc.weight, float('nan'))
    for rule in (dict(), dict(topk=2)):
        with pytest.raises(ValueError, match=r'`scores` to hold no NaN.*diverged'):
            inferencer(paths, **rule)


def test_data_samples_on_request(inferencer, paths):
    samples = inferencer([*paths, 'missing.png'], return_datasamples=True)
    assert all(isinstance(sample, DataSample) for sample in samples)
    assert samples[0].img_path == paths[0]
    assert samples[-1].error == 'There is no image file missing.png.'


@pytest.mark.parametrize(('maps', 'method'), [(True, 'inherent'), ('GradCAM', 'GradCAM')])
def test_maps_on_request(tiny_model, inferencer, paths, maps, method):
    results = inferencer(paths, maps=maps, batch_size=2)
    expected = class_maps(tiny_model, paths, method=method).numpy()
    np.testing.assert_allclose(
        np.stack([r['class_maps'] for r in results]), expected, rtol=1e-4, atol=1e-5
    )
    assert 'class_maps' not in inferencer(paths[0])[0]


@pytest.mark.parametrize('maps', [False, True])
def test_pictures_on_request(inferencer, paths, tmp_path, maps):
    results = inferencer(
        [paths[0], paths[0], np.zeros((4, 4, 3), np.uint8)],
        maps=maps,
        show_dir=tmp_path / 'new/out',
    )
    pictures = [result['picture'] for result in results]
    assert len(set(pictures)) == 3
    assert all(Image.open(picture).size[0] >= 448 for picture in pictures)


def test_views_are_averaged_and_labels_set_anew(tiny_model, paths):
    import cv2

    plain = MultiLabelInferencer(tiny_model)
    mirrored = [np.ascontiguousarray(cv2.imread(path)[:, ::-1]) for path in paths]
    expected = (scores_of(plain(paths)) + scores_of(plain(mirrored))) / 2
    results = MultiLabelInferencer(tiny_model, tta=True)(paths, batch_size=2, thr=0.5)
    # Mirroring and resizing do not commute to the last digit.
    torch.testing.assert_close(scores_of(results), expected, atol=0.02, rtol=0)
    for result in results:
        assert sorted(result['pred_label']) == np.flatnonzero(result['pred_scores'] >= 0.5).tolist()
    with pytest.raises(ValueError, match='one of `maps` and `tta`'):
        MultiLabelInferencer(tiny_model, tta=True)(paths, maps=True)


def test_pictures_of_views_show_the_image(tiny_model, paths, tmp_path):
    results = MultiLabelInferencer(tiny_model, tta=True)(paths[:2], show_dir=tmp_path / 'out')
    assert Image.open(results[1]['picture']).size == (448, 448)


@pytest.mark.parametrize(
    ('rule', 'words'), [(dict(topk=11), r'1\.\.10'), (dict(thr=[0.5] * 9), 'one number or 10')]
)
def test_rules_that_do_not_fit(tiny_model, paths, rule, words):
    with pytest.raises(ValueError, match=words):
        MultiLabelInferencer(tiny_model, **rule)
    with pytest.raises(ValueError, match=words):
        MultiLabelInferencer(tiny_model)(paths, **rule)


def test_model_without_config(tiny_model):
    del tiny_model._config
    with pytest.raises(ValueError, match='`model` to know its config'):
        MultiLabelInferencer(tiny_model)


def test_model_is_left_without_hooks(tiny_model, paths):
    MultiLabelInferencer(tiny_model)(paths, maps=True)
    assert not tiny_model._forward_hooks
    assert not tiny_model.backbone._forward_hooks


@pytest.mark.slow
def test_real_config_by_name(paths):
    results = MultiLabelInferencer('efficientnet-lite0_multifc_combined0')(paths, topk=2)
    assert set(results[0]['pred_class']) <= set(
        load_model('efficientnet-lite0_multifc_combined0')._dataset_meta['classes']
    )
