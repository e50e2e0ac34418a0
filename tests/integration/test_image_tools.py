"""Tools that take images: class_maps.py, predict.py and the thresholds that test.py chooses."""

import csv
import importlib.util
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mhc_plugin import apis
from mhc_plugin.cli.records import read_record

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / 'tools'
TINY = HERE / 'tiny.py'

# A tool turns the sentence that names the extra into its exit code.
needs_cam = pytest.mark.skipif(find_spec('pytorch_grad_cam') is None, reason='needs grad-cam')


def load_tool(name):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Run a tool in this process, in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(os.environ, 'LOCAL_RANK', '0')

    def run(name, *args):
        module = load_tool(name)
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        module.main()

    return run


@pytest.fixture(scope='module')
def checkpoint(tiny_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.pth'
    model = apis.load_model(tiny_config(), device='cpu')
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.fc.weight)
    classes = [str(digit) for digit in range(10)]
    torch.save(
        dict(
            state_dict=model.state_dict(),
            message_hub={},
            meta=dict(dataset_meta=dict(classes=classes)),
        ),
        path,
    )
    return path


@pytest.fixture
def folder(tmp_path, make_image):
    for seed in range(3):
        make_image(tmp_path / f'photos/{seed}.png', seed=seed)
    (tmp_path / 'photos/broken.jpg').write_bytes(b'no image')
    return tmp_path / 'photos'


def test_panels_of_a_folder(tool, checkpoint, folder, tmp_path, capsys):
    tool('class_maps', TINY, checkpoint, folder, '--classes', '7', '2', '--npz', '--topk', 3)
    out, err = capsys.readouterr()
    assert '3 panels in class_maps' in out
    assert 'broken.jpg cannot be read as an image' in err
    written = sorted(path.name for path in (tmp_path / 'class_maps').iterdir())
    assert written == [f'0000{i}_{i}.{suffix}' for i in range(3) for suffix in ('npz', 'png')]
    raw = np.load(tmp_path / 'class_maps/00000_0.npz')
    assert raw['classes'].tolist() == ['7', '2']
    assert raw['maps_0'].shape[0] == 2


def test_no_panel_is_a_failure(tool, checkpoint, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        tool('class_maps', TINY, checkpoint, folder / 'broken.jpg')
    assert ended.value.code == 1
    assert 'Left out: ' in capsys.readouterr().err


@needs_cam
def test_panels_of_a_data_set_before_and_after(tool, checkpoint, tmp_path):
    tool(
        'class_maps',
        TINY,
        checkpoint,
        '--dataset',
        'val',
        '--num',
        1,
        '--compare',
        'none',
        '--npz',
        '--method',
        'GradCAM',
        '--out-dir',
        'out',
        '--classes',
        '1',
    )
    assert np.load(tmp_path / 'out/00000_image0.npz')['models'].tolist() == ['model', 'untrained']


@pytest.mark.parametrize(
    ('asked', 'titles'),
    [
        ([('a.py', 'runs/epoch_9.pth')], ['epoch_9']),
        ([('a.py', 'none'), ('a.py', 'runs/epoch_9.pth')], ['untrained', 'epoch_9']),
        ([('a_x.py', 'runs/epoch_9.pth'), ('b_x.py', 'runs/epoch_30.pth')], ['a', 'b']),
        (
            [
                ('vgg19_multifc_voc', 'x/epoch_9.pth'),
                ('vgg19_multiconv-channels_voc', 'x/epoch_9.pth'),
            ],
            ['multifc', 'multiconv-channels'],
        ),
        ([('b.py', 'b/seed0/epoch_9.pth'), ('b.py', 'b/seed1/epoch_9.pth')], ['seed0', 'seed1']),
        ([('b.py', 'b/x/epoch_9.pth'), ('b.py', 'c/x/epoch_9.pth')], ['first', 'second']),
    ],
)
def test_models_are_named_by_what_they_differ_in(asked, titles):
    assert load_tool('class_maps').titles(asked) == titles


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (('--road', 1), 'ROAD needs pytorch_grad_cam: pip install "mhc_plugin[cam]".'),
        (('--method', 'NoCAM'), 'NoCAM'),
        (
            ('--out', 'maps.txt'),
            'Expected --out to name a file that ends in .json, but got maps.txt.',
        ),
    ],
)
def test_nothing_is_trained_for_measures_that_cannot_be_had(
    tool, tmp_path, monkeypatch, capsys, options, sentence
):
    if '--road' in options:
        for module in ('pytorch_grad_cam', 'pytorch_grad_cam.metrics.road'):
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit) as ended:
        tool('evaluate_maps', '--model', TINY, '--work-dir', 'runs', *options)
    assert ended.value.code == 1
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / 'runs').exists()


@pytest.mark.parametrize('inputs', [(), ('a.jpg', '--dataset', 'test')])
def test_images_or_a_data_set(tool, checkpoint, inputs, capsys):
    with pytest.raises(SystemExit):
        tool('class_maps', TINY, checkpoint, *inputs)
    assert 'give either images, folders or patterns, or --dataset' in capsys.readouterr().err


@needs_cam
def test_errors_are_one_sentence(tool, checkpoint, folder, capsys):
    with pytest.raises(SystemExit) as ended:
        tool('class_maps', TINY, checkpoint, folder, '--method', 'NoCAM')
    assert ended.value.code == 1
    assert "Error: Expected argument `method` to be 'inherent'" in capsys.readouterr().err


def test_predictions_as_lines(tool, checkpoint, folder, capsys):
    tool('predict', TINY, checkpoint, folder, '--topk', 2)
    lines = capsys.readouterr().out.splitlines()
    results = apis.MultiLabelInferencer(str(TINY), checkpoint, topk=2)([str(folder)])
    assert [line.partition(': ')[0] for line in lines] == [r['img_path'] for r in results]
    for line, result in zip(lines, results):
        if 'error' in result:
            assert line.endswith(f'not read: {result["error"]}')
        else:
            assert [part.split()[0] for part in line.partition(': ')[2].split(', ')] == (
                result['pred_class']
            )


def test_scores_that_are_nan_are_an_error_everywhere(tool, checkpoint, folder, tmp_path, capsys):
    content = torch.load(checkpoint)
    content['state_dict']['head.fc.weight'][0, 0, :] = float('nan')
    diverged = tmp_path / 'nan.pth'
    torch.save(content, diverged)
    for name, *args in (
        ('predict', TINY, diverged, folder),
        ('predict', TINY, diverged, folder, '--out', 'nan.json'),
        ('class_maps', TINY, diverged, folder),
        ('test', TINY, diverged, '--work-dir', 'work'),
        ('test', TINY, diverged, '--work-dir', 'work', '--out', 'nan.pkl'),
        ('evaluate_maps', '--model', TINY, diverged),
        *([('export', TINY, diverged, 'nan.onnx')] if find_spec('onnxruntime') else []),
    ):
        with pytest.raises(SystemExit) as ended:
            tool(name, *args)
        assert ended.value.code == 1, name
        assert '`scores` to hold no NaN' in capsys.readouterr().err, name
    assert not list(tmp_path.glob('nan.[!p]*'))


@pytest.mark.parametrize('suffix', ['json', 'csv'])
def test_predictions_as_files(tool, checkpoint, folder, tmp_path, capsys, suffix):
    tool('predict', TINY, checkpoint, folder, '--topk', 2, '--out', f'new/out.{suffix}')
    assert 'broken.jpg' in capsys.readouterr().err
    results = apis.MultiLabelInferencer(str(TINY), checkpoint, topk=2)([str(folder)])
    with (tmp_path / f'new/out.{suffix}').open(newline='') as file:
        rows = json.load(file) if suffix == 'json' else list(csv.DictReader(file))
    assert [row['file'] for row in rows] == [result['img_path'] for result in results]
    for row, result in zip(rows, results):
        if 'error' in result:
            assert row['error'] == result['error']
            continue
        labels = row['labels'] if suffix == 'json' else row['labels'].split('|')
        assert labels == result['pred_class']
        score = row['scores']['7'] if suffix == 'json' else row['score:7']
        assert float(score) == pytest.approx(float(result['pred_scores'][7]), abs=1e-5)


def test_pictures_with_maps(tool, checkpoint, folder, tmp_path):
    tool('predict', TINY, checkpoint, folder / '0.png', '--show-dir', 'show', '--maps')
    assert [path.name for path in (tmp_path / 'show').iterdir()] == ['00000_0.png']


def test_views_and_thresholds(tool, checkpoint, folder, capsys):
    tool('predict', TINY, checkpoint, folder, '--tta', '--thr', *[1.1] * 10)
    assert capsys.readouterr().out.count('(none)') == 3


def test_nothing_could_be_read(tool, checkpoint, folder):
    with pytest.raises(SystemExit) as ended:
        tool('predict', TINY, checkpoint, folder / 'broken.jpg')
    assert ended.value.code == 1


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (('--out', 'x.txt'), "`out` to end in one of ('.json', '.csv'), but got 'x.txt'"),
        (('--maps',), '--maps needs --show-dir'),
        (('--topk', '0'), 'integer of 1 or more'),
    ],
)
def test_options_that_do_not_fit(tool, checkpoint, folder, capsys, args, words):
    with pytest.raises(SystemExit) as ended:
        tool('predict', TINY, checkpoint, folder, *args)
    assert ended.value.code in (1, 2)
    assert words in capsys.readouterr().err


def test_thresholds_are_chosen_and_predicted_by(tool, checkpoint, folder, tmp_path):
    copy = tmp_path / 'copy.pth'
    copy.write_bytes(checkpoint.read_bytes())
    tool('test', TINY, copy, '--choose-thresholds', '--work-dir', 'work')
    stored = torch.load(copy)['meta']['dataset_meta']['thresholds']
    assert len(stored) == 10
    assert apis.MultiLabelInferencer(str(TINY), copy).thr == stored


@needs_cam
def test_table_of_class_maps(tool, checkpoint, tmp_path, capsys):
    tool(
        'evaluate_maps',
        '--model',
        TINY,
        checkpoint,
        '--out',
        'maps.json',
        '--road',
        1,
        '--cfg-options',
        'test_dataloader.dataset.length=12',
    )
    shown = capsys.readouterr().out
    assert 'GridPG' in shown
    assert 'Swap' in shown
    record = read_record(tmp_path / 'maps.json')
    figures = record['scores']['tiny']
    assert figures['swap_chance'] == dict(mean=20, std=None, values=[20])
    assert figures['road_chance']['mean'] == 0
    assert len(record['data']) == 16
    assert record['command'].startswith('python evaluate_maps')
