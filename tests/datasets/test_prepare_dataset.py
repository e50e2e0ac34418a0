import hashlib
import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mmpretrain.datasets import MultiLabelDataset
from mmpretrain.registry import DATASETS
from PIL import Image
from tool_process import ToolProcess

from mhc_plugin.apis import prepare
from mhc_plugin.apis.prepare import prepare_openimages, prepare_splices, prepare_voc
from mhc_plugin.datasets import JSONMultiLabelDataset, VOCSubset
from mhc_plugin.datasets.annotation_files import new_folder

TOOL = Path(__file__).parents[2] / 'tools' / 'prepare_dataset.py'
OBJECTS = {
    '1': [('dog', 0), ('cat', 0), ('person', 1)],
    '2': [('cat', 0)],
    '3': [('dog', 0), ('sofa', 1)],
    '4': [('cat', 0), ('person', 0)],
    '5': [('dog', 0), ('cat', 0), ('person', 0)],
}
DIGITS = {'train_dataloader.dataset.length': 6, 'test_dataloader.dataset.length': 3}


@pytest.fixture
def voc(make_voc, tmp_path):
    root = make_voc(tmp_path / 'VOC2012', OBJECTS)
    return make_voc(root, {'6': [('cat', 0), ('dog', 0)], '7': [('cat', 1)]}, split='test')


def read_card(out):
    return json.loads((out / 'card.json').read_text())


def test_voc_comes_back_through_the_json(voc, tmp_path):
    out = prepare_voc(tmp_path / 'out', str(voc), classes=['cat', 'dog', 'person'])
    assert sorted(os.listdir(out)) == ['card.json', 'test.json', 'trainval.json']
    subset = VOCSubset(str(voc), classes=['cat', 'dog', 'person'], min_labels=2, max_labels=7)
    card = read_card(out)
    images_below = card['splits']['trainval']['images_below']
    arguments = dict(ann_file=str(out / 'trainval.json'), data_prefix=images_below)
    theirs, ours = MultiLabelDataset(**arguments), JSONMultiLabelDataset(**arguments)
    assert len(theirs) == len(ours) == len(subset) == 3
    for i in range(3):
        expected = subset.get_data_info(i)
        assert theirs.get_data_info(i)['gt_label'] == expected['gt_label']
        assert os.path.samefile(theirs.get_data_info(i)['img_path'], expected['img_path'])
        assert ours.get_data_info(i)['gt_score'].tolist() == expected['gt_score'].tolist()
    assert theirs.metainfo['classes'] == ['cat', 'dog', 'person']


def test_card_says_what_is_in_it_and_where_it_came_from(voc, tmp_path):
    out = prepare_voc(tmp_path / 'out', str(voc), num_classes=2, max_images=1, seed=3)
    card = read_card(out)
    # Cat and dog are together in two images, cat and person as well, but cat and dog more evenly.
    assert card['classes'] == ['cat', 'dog']
    assert card['classes_chosen_by'] == dict(split='trainval', num_classes=2)
    assert card['settings'] == dict(
        data_root=str(voc), difficult='unknown', min_labels=2, max_labels=7, max_images=1, seed=3
    )
    split = card['splits']['trainval']
    assert split['before']['images'] == 5
    assert split['before']['classes']['cat'] == dict(present=4, absent=1, unknown=0)
    assert split['after']['images'] == 1
    content = (out / 'trainval.json').read_bytes()
    assert split['file'] == dict(
        path='trainval.json', bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    source = voc / 'ImageSets/Main/trainval.txt'
    assert split['sources'] == [
        dict(path=str(source), bytes=10, sha256=hashlib.sha256(source.read_bytes()).hexdigest())
    ]


def test_same_arguments_give_the_same_bytes(voc, tmp_path):
    outs = [prepare_voc(tmp_path / name, str(voc), num_classes=2, max_images=1) for name in 'ab']
    for name in ('card.json', 'trainval.json', 'test.json'):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()


def test_several_roots_share_the_folder_above(make_voc, tmp_path):
    roots = [
        str(make_voc(tmp_path / 'kit' / name, {name: [('cat', 0), ('dog', 0)]}))
        for name in ('VOC2007', 'VOC2012')
    ]
    out = prepare_voc(tmp_path / 'out', roots, splits=['trainval'], classes=['cat', 'dog'])
    assert read_card(out)['splits']['trainval']['images_below'] == str(tmp_path / 'kit')
    entries = json.loads((out / 'trainval.json').read_text())['data_list']
    assert [entry['img_path'] for entry in entries] == [
        'VOC2007/JPEGImages/VOC2007.jpg',
        'VOC2012/JPEGImages/VOC2012.jpg',
    ]


def test_openimages_is_chosen_before_it_is_downloaded(make_openimages, tmp_path):
    labels = [
        ('b', '/m/dog', 1),
        ('a', '/m/cat', 1),
        ('a', '/m/dog', 1),
        ('b', '/m/cat', 1),
        ('c', '/m/cat', 1),
        ('b', '/m/cup', 0),
    ]
    root = make_openimages(tmp_path / 'oi', labels, on_disk=[])
    out = prepare_openimages(
        tmp_path / 'out', str(root), splits=['train'], num_classes=2, require_images=False
    )
    assert (out / 'train_images.txt').read_text() == 'train/a\ntrain/b\n'
    annotations = json.loads((out / 'train.json').read_text())
    assert annotations['metainfo'] == dict(classes=['Cat', 'Dog'])
    assert annotations['data_list'][0] == dict(img_path='a.jpg', gt_label=[0, 1], unknown_label=[])
    card = read_card(out)
    assert card['splits']['train']['images_below'] == str(root / 'train')
    assert [Path(source['path']).name for source in card['splits']['train']['sources']] == [
        'class-descriptions-boxable.csv',
        'train-annotations-human-imagelabels-boxable.csv',
    ]


def test_unknown_labels_have_a_field_of_their_own(make_openimages, tmp_path):
    root = make_openimages(tmp_path / 'oi', [('a', '/m/cat', 1), ('b', '/m/dog', 0)])
    out = prepare_openimages(
        tmp_path / 'out',
        str(root),
        splits=['train'],
        min_labels=0,
        classes=['Dog', 'Cat', '/m/cup'],
    )
    entries = json.loads((out / 'train.json').read_text())['data_list']
    assert entries == [
        dict(img_path='a.jpg', gt_label=[1], unknown_label=[0, 2]),
        dict(img_path='b.jpg', gt_label=[], unknown_label=[1, 2]),
    ]


def test_composites_are_those_of_the_dataset(tmp_path):
    out = prepare_splices(tmp_path / 'out', 'digits', cfg_options=DIGITS)
    card = read_card(out)
    assert card['parts']['train']['images'] == len(list((out / 'train').iterdir())) == 6
    cfg = prepare.load_config(prepare._splice_config('digits'), DIGITS)
    dataset = DATASETS.build(
        dict(cfg.test_dataloader.dataset, pipeline=[dict(type='ComposeTiles')])
    )
    read = MultiLabelDataset(ann_file='test.json', data_root=str(out))
    assert len(read) == len(dataset) == 3
    for i in range(3):
        expected, info = dataset[i], read.get_data_info(i)
        pixels = np.asarray(Image.open(info['img_path']))[..., ::-1]
        np.testing.assert_array_equal(pixels, expected['img'])
        assert info['gt_label'] == list(expected['gt_label'])
        assert info['gt_cells'] == expected['gt_cells'].tolist()
    assert card['parts']['test']['classes'].keys() == set('0123456789')


def test_dataset_that_is_not_spliced_is_refused(tmp_path):
    for part, message in (
        ('val', 'to be a SplicedDataset, but it is a SklearnDigits'),
        ('test', 'to have a test_dataloader, but .* has none'),
    ):
        config = tmp_path / 'config.py'
        config.write_text("val_dataloader = dict(dataset=dict(type='SklearnDigits', split='test'))")
        with pytest.raises(ValueError, match=message):
            prepare_splices(tmp_path / 'out', config, parts=[part])
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError, SystemExit])
def test_interrupted_at_any_write_it_leaves_nothing(voc, tmp_path, monkeypatch, error):
    parent = tmp_path / 'results'
    for stop in range(100):
        calls = []

        def counted(function, calls=calls, stop=stop):
            def call(*args, **kwargs):
                calls.append(function)
                if len(calls) > stop:
                    raise error
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ('write_annotations', 'write_lines', 'describe_file', 'print_counts'):
                patch.setattr(prepare, name, counted(getattr(prepare, name)))
            patch.setattr(Path, 'rename', counted(Path.rename))
            try:
                prepare_voc(parent / 'out', str(voc), classes=['cat', 'dog'])
            except error:
                assert list(parent.iterdir()) == []
                continue
        break
    assert stop > 8
    assert [path.name for path in parent.iterdir()] == ['out']


def test_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / 'out').mkdir()
    with pytest.raises(FileExistsError, match='out exists already'), new_folder(tmp_path / 'out'):
        raise AssertionError
    assert os.listdir(tmp_path) == ['out']


def test_folder_has_the_rights_of_any_other(tmp_path):
    with new_folder(tmp_path / 'a' / 'out') as folder:
        (folder / 'file').touch()
        assert os.listdir(tmp_path / 'a') == [folder.name]
    (tmp_path / 'other').mkdir()
    assert (tmp_path / 'a/out').stat().st_mode == (tmp_path / 'other').stat().st_mode
    assert os.listdir(tmp_path / 'a/out') == ['file']


def run_tool(monkeypatch, *arguments):
    """Run the tool in this process; its exit code comes back."""
    monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    except SystemExit as end:
        return end.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    return 0


def test_tool_passes_its_options_on(voc, make_openimages, tmp_path, monkeypatch, capsys):
    assert (
        run_tool(
            monkeypatch,
            'voc',
            '--data-root',
            voc,
            '--out',
            tmp_path / 'a',
            '--splits',
            'test',
            '--classes',
            'cat',
            'dog',
            '--min-labels',
            1,
            '--difficult',
            'positive',
            '--seed',
            5,
            '--max-images',
            9,
            '--max-labels',
            3,
        )
        == 0
    )
    card = read_card(tmp_path / 'a')
    assert card['settings'] == dict(
        data_root=[str(voc)], difficult='positive', min_labels=1, max_labels=3, max_images=9, seed=5
    )
    assert card['splits']['test']['after']['classes']['cat']['present'] == 2
    printed = capsys.readouterr().out
    assert 'test images per class' in printed
    assert f'Written: {tmp_path / "a"}' in printed

    root = make_openimages(
        tmp_path / 'oi',
        [('a', '/m/cat', 1), ('a', '/m/dog', 0)],
        [('a', '/m/dog', 0, 1, 0, 1, 0, 1)],
        on_disk=[],
    )
    assert (
        run_tool(
            monkeypatch,
            'openimages',
            '--data-root',
            root,
            '--out',
            tmp_path / 'b',
            '--splits',
            'train',
            '--before-download',
            '--labels',
            'both',
            '--no-depictions',
            '--min-labels',
            1,
            '--num-classes',
            1,
        )
        == 0
    )
    card = read_card(tmp_path / 'b')
    assert card['classes'] == ['Cat']
    assert card['splits']['train']['images_below'] == str(root / 'train')

    assert (
        run_tool(
            monkeypatch,
            'splice',
            'digits',
            '--out',
            tmp_path / 'c',
            '--parts',
            'test',
            '--cfg-options',
            'test_dataloader.dataset.length=2',
        )
        == 0
    )
    assert len(list((tmp_path / 'c/test').iterdir())) == 2


def test_tool_says_what_is_wrong_in_one_sentence(voc, tmp_path, monkeypatch, capsys):
    (voc / 'Annotations/4.xml').write_text('<annotation>')
    code = run_tool(monkeypatch, 'voc', '--data-root', voc, '--out', tmp_path / 'out')
    assert code == 1
    printed = capsys.readouterr().err
    assert '4.xml, line 1: The XML is broken' in printed
    assert 'Traceback' not in printed
    assert not (tmp_path / 'out').exists()
    with pytest.raises(ValueError, match='XML is broken'):
        run_tool(monkeypatch, 'voc', '--data-root', voc, '--out', tmp_path / 'out', '--traceback')


def test_tool_says_that_it_was_interrupted(voc, tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, '_write_card', interrupt)
    code = run_tool(
        monkeypatch, 'voc', '--data-root', voc, '--out', tmp_path / 'out', '--num-classes', 2
    )
    assert code == 130
    assert capsys.readouterr().err == 'Interrupted; nothing was written.\n'
    assert sorted(os.listdir(tmp_path)) == ['VOC2012']


@pytest.mark.parametrize('arguments', [[], ['voc'], ['openimages'], ['splice'], ['convert']])
def test_help_names_every_option(monkeypatch, capsys, arguments):
    assert run_tool(monkeypatch, *arguments, '--help') == 0
    printed = capsys.readouterr().out
    assert 'usage: ' in printed
    assert not arguments or '--out F' in printed


def test_tool_converts_labels(monkeypatch, capsys, tmp_path):
    export = tmp_path / 'export.json'
    export.write_text(json.dumps([dict(image='a.jpg', id=1, tags=dict(choices=['cat', 'dog']))]))
    out = tmp_path / 'labels.csv'
    assert run_tool(monkeypatch, 'convert', export, '--out', out, '--classes', 'dog') == 0
    assert out.read_text() == 'file,labels,unknown_labels\na.jpg,dog,\n'
    assert f'Written: {out}' in capsys.readouterr().out
    assert run_tool(monkeypatch, 'convert', export, '--out', out) == 1
    assert 'labels.csv exists already' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGKILL])
def test_killed_it_leaves_no_half_written_result(tmp_path, how):
    out = tmp_path / 'results' / 'out'
    process = ToolProcess(
        TOOL,
        'splice',
        'digits',
        '--out',
        out,
        '--cfg-options',
        'train_dataloader.dataset.length=100000',
        cwd=tmp_path,
        env=os.environ,
    )
    try:
        deadline = time.monotonic() + 120
        while not list(out.parent.glob('.out.*/train/*.png')):
            assert process.returncode is None, process.stderr
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(how)
        assert process.wait(60) != 0
    finally:
        process.kill()
    assert not out.exists()
    assert (how == signal.SIGKILL) or list(out.parent.iterdir()) == []
