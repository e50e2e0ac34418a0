"""One file per class: what it holds, what is refused, and what is put together of it."""

import copy
import json
import math
import runpy
import struct
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from safetensors.torch import save_file

import mhc_plugin.apis
from mhc_plugin.apis import (
    add_head,
    assemble_heads,
    compare_heads,
    extract_heads,
    head_files,
    load_heads,
    load_model,
    read_head,
    remove_head,
    verify_heads,
)
from mhc_plugin.apis.class_choice import select_classes
from mhc_plugin.apis.head_files import FORMAT, KEY, file_name, head_paths, write_card

KINDS = {
    'linear': {},
    'hidden': dict(hidden_channels=[4]),
    'channels': dict(connection='channels'),
    'conv': dict(type='ConvMultiHeadClsHead', conv_channels=4),
    'attention': dict(type='AttentionMultiHeadClsHead'),
    'baseline': dict(type='MultiLabelLinearClsHead', loss=dict(type='PerHeadBCELoss')),
}


@pytest.fixture
def cfg(tiny_cfg):
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        tiny_cfg[name].dataset.length = 12
    return tiny_cfg


def checkpoint(cfg, path, seed=0):
    """A model whose head is random, as a runner would save it."""
    model = load_model(cfg, device='cpu')
    torch.manual_seed(seed)
    for tensor in (*model.head.parameters(), *model.head.buffers()):
        if tensor.is_floating_point():
            # Variances are among them.
            tensor.data.normal_().abs_()
    meta = dict(dataset_meta=dict(classes=[str(c) for c in range(10)]))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    # Random weights could not be found again.
    cfg.backbone_weights = str(path)
    return path


@pytest.fixture
def folder(cfg, tmp_path):
    extract_heads(cfg, checkpoint(cfg, tmp_path / 'a.pth'), tmp_path / 'heads')
    return tmp_path / 'heads'


def test_a_file_says_what_it_is(cfg, folder, tmp_path):
    head = read_head(folder / '3.safetensors')
    state = torch.load(tmp_path / 'a.pth')['state_dict']
    assert head.class_name == '3'
    assert head.head['type'] == 'MultiHeadClsHead'
    assert head.head['inputs'] == [[-1, 0, 64]]
    weight = next(x for x in head.tensors.values() if x.numel() == 64)
    assert torch.equal(weight[0], state['head.fc.weight'][3, 0])
    assert all(
        len(x) == 64 and int(x, 16) for x in (head.backbone, head.preprocessing, head.training_data)
    )
    assert read_head(folder / '4.safetensors').training_data != head.training_data
    assert (folder / '3.safetensors').stat().st_size < 4000
    assert '| 3 | `3.safetensors` |' in (folder / 'README.md').read_text()


@pytest.mark.parametrize('kind', KINDS)
def test_files_put_together_are_the_model(cfg, tmp_path, kind):
    cfg.model.head.update(KINDS[kind])
    if kind == 'baseline':
        cfg.model.neck = dict(type='GlobalAveragePooling')
    given = checkpoint(cfg, tmp_path / 'a.pth')
    paths = extract_heads(cfg, given, tmp_path / 'heads')
    out = assemble_heads(cfg, paths[::-1], tmp_path / 'b.pth')
    one, other = torch.load(given)['state_dict'], torch.load(out)['state_dict']
    # What fills up narrower slices belongs to no head, and is not random but zero in a real model.
    assert kind == 'channels' or all(torch.equal(x, other[name]) for name, x in one.items())
    again = extract_heads(cfg, out, tmp_path / 'again')
    assert [a.read_bytes() for a in paths] == [b.read_bytes() for b in again]
    # Five classes, which only slices of channels cannot do without the others.
    if kind == 'channels':
        with pytest.raises(ValueError, match="with `connection='channels'`"):
            assemble_heads(cfg, paths[::2], tmp_path / 'c.pth')
        return
    few = load_heads(cfg, paths[::2], device='cpu')
    assert few._dataset_meta['classes'] == ('0', '2', '4', '6', '8')
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    whole = load_model(cfg, given, device='cpu')
    one, other = (m(m.data_preprocessor(dict(inputs=images))['inputs']) for m in (few, whole))
    torch.testing.assert_close(one, other[:, ::2])


def test_a_checkpoint_of_some_classes_comes_with_its_config(cfg, folder, tmp_path):
    out = assemble_heads(
        cfg, [folder / '7.safetensors', folder / '2.safetensors'], tmp_path / 'b.pth'
    )
    model = load_model(Config.fromfile(tmp_path / 'b.py'), out, device='cpu')
    assert model.head.num_classes == 2
    assert model._dataset_meta['classes'] == ('2', '7')


def test_shared_heads_are_no_files(cfg, tmp_path):
    cfg.model.head.update(type='ConvClsHead', conv_channels=4)
    with pytest.raises(ValueError, match='10 classes share a head of `ConvClsHead`'):
        extract_heads(cfg, checkpoint(cfg, tmp_path / 'a.pth'), tmp_path / 'heads')


def dict_with(cfg, **values):
    cfg = copy.deepcopy(cfg)
    for name, value in values.items():
        cfg[name] = value
    return cfg


def refused(cfg, files, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        assemble_heads(cfg, files, tmp_path / 'refused.pth')
    assert not (tmp_path / 'refused.pth').exists()


def test_what_does_not_fit_is_refused_and_nothing_is_written(cfg, folder, tmp_path):
    three = folder / '3.safetensors'
    refused(cfg, [three, three], "'3' is there twice", tmp_path)
    refused(cfg, [], 'at least one file', tmp_path)
    other = copy.deepcopy(cfg)
    other.backbone_weights = 'none'
    refused(other, [three], 'trained on another backbone', tmp_path)
    other = copy.deepcopy(cfg)
    other.test_dataloader.dataset.pipeline.insert(1, dict(type='Resize', scale=32))
    refused(other, [three], 'images prepared otherwise', tmp_path)
    other = copy.deepcopy(cfg)
    other.data_preprocessor = dict(cfg.data_preprocessor, mean=[0.0] * 3)
    refused(other, [three], 'images prepared otherwise', tmp_path)
    other = copy.deepcopy(cfg)
    other.model.head.pool = 'max'
    refused(other, [three], "another kind of head: its `pool` is 'avg', and not 'max'", tmp_path)
    other = copy.deepcopy(cfg)
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        other[name].dataset.classes = [str(c) for c in range(4, 10)]
    other.model.head.num_classes = 6
    refused(other, [three], "of class '3', which the config has not", tmp_path)


def test_damaged_and_hostile_files_are_refused(cfg, folder, tmp_path):
    whole = (folder / '3.safetensors').read_bytes()
    path = tmp_path / 'bad.safetensors'
    size = struct.unpack('<Q', whole[:8])[0]

    def check(content, sentence='damaged'):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=sentence):
            read_head(path)
        refused(cfg, [folder / '4.safetensors', path], sentence, tmp_path)

    for cut in (0, 5, 8, size // 2, size + 8, len(whole) - 1):
        check(whole[:cut])
    check(whole + b'x')
    for place in (20, size + 20, len(whole) - 3):
        check(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    check(struct.pack('<Q', 1 << 60) + whole[8:])
    torch.save(dict(a=torch.zeros(1)), tmp_path / 'pickle')
    check((tmp_path / 'pickle').read_bytes())

    def check_meta(meta, sentence='damaged'):
        save_file(dict(w=torch.zeros(1)), path, meta)
        check(path.read_bytes(), sentence)

    check_meta(None, 'does not say of which class')
    check_meta({KEY: '[' * 100_000})
    check_meta({KEY: '{}'})
    check_meta({KEY: json.dumps(dict(format=99, sha256=''))}, 'of format 99')
    check_meta({KEY: json.dumps(dict(format=1, sha256='', evil=1))})
    check_meta({KEY: '9' * 5000})
    # Whole, and of types that nobody has asked for.
    three = read_head(folder / '3.safetensors')
    for wrong in (
        dict(class_name='\x1b[2J'),
        dict(scores=dict(AP='91')),
        dict(scores=[]),
        dict(threshold='0.5'),
        dict(threshold=math.inf),
        dict(backbone='none'),
        dict(training_data=1),
        dict(head=[]),
    ):
        meta = dict(three.meta(), **wrong, format=FORMAT)
        meta['sha256'] = head_files._digest(meta, three.tensors)
        save_file(three.tensors, path, {KEY: json.dumps(meta, sort_keys=True)})
        check(path.read_bytes())
    with pytest.raises(FileNotFoundError, match='There is no file'):
        read_head(tmp_path / 'none')


def test_scores_are_those_of_the_test_data(cfg, folder, tmp_path, monkeypatch):
    found = mhc_plugin.apis.test(
        dict_with(cfg, test_evaluator=[dict(type='MultiLabelMeanAP', average=None)]),
        tmp_path / 'a.pth',
    )['multi-label/mAP_classwise']
    scores = [read_head(folder / f'{c}.safetensors').scores for c in range(10)]
    assert [x.get('AP') for x in scores] == pytest.approx(found, abs=0.005)
    assert f'AP {scores[3]["AP"]:.2f}' in (folder / 'README.md').read_text()
    # Also where nothing has set MMEngine's default scope yet.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    again = extract_heads(cfg, tmp_path / 'a.pth', tmp_path / 'again')
    assert [p.read_bytes() for p in again] == [(folder / p.name).read_bytes() for p in again]
    # Without test data there are none.
    for name in ('test_dataloader', 'test_evaluator', 'test_cfg'):
        cfg.pop(name)
    paths = extract_heads(cfg, tmp_path / 'a.pth', tmp_path / 'b')
    assert read_head(paths[0]).scores == {}


def test_a_class_that_no_file_can_name_is_refused(folder, tmp_path):
    head = replace(read_head(folder / '3.safetensors'), class_name='two\nlines')
    with pytest.raises(ValueError, match='No file can hold what is said of this head'):
        head.save(tmp_path)


def test_names_of_files_stay_in_the_folder():
    assert file_name('../../cat') == '..%2F..%2Fcat.safetensors'
    assert file_name('Ice cream') == 'Ice cream.safetensors'


def test_long_names_and_bars(folder, tmp_path):
    head = read_head(folder / '3.safetensors')
    for name in ('\u8eca' * 30, '\u8eca' * 30 + 'b', 'a|b'):
        path = replace(head, class_name=name).save(tmp_path)
        assert len(path.name.encode()) <= 255
        assert read_head(path).class_name == name
    assert len(list(tmp_path.glob('*.safetensors'))) == 3
    rows = write_card(tmp_path).read_text().splitlines()
    row = next(row for row in rows if r'a\|b' in row)
    assert row.count('|') - row.count(r'\|') == rows[rows.index(row) - 1].count('|')
    # What cannot be written leaves nothing behind.
    (tmp_path / 'dog.safetensors').mkdir()
    with pytest.raises(IsADirectoryError, match='dog'):
        replace(head, class_name='dog').save(tmp_path)
    assert not list(tmp_path.glob('*.part'))


def test_a_head_without_a_threshold_leaves_those_of_others(cfg, folder, monkeypatch):
    said = []
    monkeypatch.setattr('mhc_plugin.apis.heads.print_log', lambda text, *args: said.append(text))
    paths = [folder / '3.safetensors', folder / '7.safetensors']
    replace(read_head(paths[0]), threshold=0.2).save(folder)
    model = load_heads(cfg, paths, device='cpu')
    default = model.head.thr or 0.5
    assert model._dataset_meta['thresholds'] == [0.2, default]
    assert said == [f"['7'] came without a threshold of their own: {default} is taken."]


def test_differences_are_said(cfg, folder, tmp_path):
    assert compare_heads(folder / '3.safetensors', folder / '3.safetensors') == []
    found = compare_heads(folder / '3.safetensors', folder / '4.safetensors')
    assert found[0] == "class_name: '3' and '4'"
    assert any('differs by up to' in line for line in found)


def test_remove_and_add_leave_the_others_alone(cfg, folder, tmp_path, monkeypatch):
    before = {path.name: path.read_bytes() for path in head_paths(folder)}
    extract_heads(cfg, tmp_path / 'a.pth', folder, license='mit')
    remove_head(folder, '3')
    assert '`3.safetensors`' not in (folder / 'README.md').read_text()
    with pytest.raises(FileNotFoundError, match="no head of '3'"):
        remove_head(folder, '3')
    cache = dict(cache_dir=str(tmp_path / 'cache'))
    with pytest.raises(ValueError, match="There is a head of '4'"):
        add_head(cfg, folder, '4', optimum=0.01, feature_cache=cache)
    cfg.work_dir = str(tmp_path / 'work')
    path = add_head(cfg, folder, '3', optimum=0.01, feature_cache=cache)
    after = {p.name: p.read_bytes() for p in head_paths(folder)}
    assert after.keys() == before.keys()
    assert [n for n in after if after[n] != before[n]] == [path.name]
    assert 'license: mit' in (folder / 'README.md').read_text()
    assert [head.class_name for head in verify_heads(cfg, [folder])] == [str(c) for c in range(10)]
    # All ten at once give the same file.
    result = mhc_plugin.apis.train(cfg, optimum=0.01, feature_cache=cache)
    extract_heads(cfg, result.checkpoint, tmp_path / 'all')
    together = read_head(tmp_path / 'all' / path.name)
    for name, x in read_head(path).tensors.items():
        torch.testing.assert_close(x, together.tensors[name], rtol=1e-5, atol=1e-6)


def test_files_of_a_class_are_equal_whoever_was_trained_beside_it(cfg, tmp_path):
    cfg.model.head.update(type='ConvMultiHeadClsHead', conv_channels=4, dropout=0.5, separate=True)
    checkpoint(cfg, tmp_path / 'a.pth')  # Whose backbone all of them have.
    cache = dict(cache_dir=str(tmp_path / 'cache'))

    def files(classes, name):
        result = mhc_plugin.apis.train(
            cfg, work_dir=tmp_path / name, feature_cache=cache, no_validate=True, classes=classes
        )
        own = copy.deepcopy(cfg)
        if classes is not None:
            select_classes(own, classes)
        return extract_heads(own, result.checkpoint, tmp_path / f'{name} heads', scores={})

    together = {path.name: path.read_bytes() for path in files(None, 'all')}
    some = files(['2', '7', '9'], 'some')
    assert [path.read_bytes() for path in some] == [together[path.name] for path in some]
    # What is stored of the images has served both.
    assert len(list((tmp_path / 'cache').glob('*/manifest.json'))) == 1


def test_unknown_classes_get_a_hint(cfg):
    with pytest.raises(ValueError, match="There is no class '33' in this config; did you mean 3"):
        mhc_plugin.apis.train(cfg, classes=['33'])


def test_the_tool_looks_at_files_without_a_config(folder, monkeypatch, capsys):
    def tool(*args):
        monkeypatch.setattr('sys.argv', ['heads.py', *map(str, args)])
        runpy.run_path(str(Path(__file__).parents[2] / 'tools' / 'heads.py'), run_name='__main__')
        return capsys.readouterr().out.splitlines()

    listed = tool('list', folder)
    assert [line.split(':')[0] for line in listed] == [str(c) for c in range(10)]
    assert tool('diff', folder / '3.safetensors', folder / '3.safetensors') == ['No difference.']
    assert len(tool('diff', folder / '3.safetensors', folder / '4.safetensors')) > 1
    tool('remove', folder, '3')
    assert len(tool('list', folder)) == 9
    with pytest.raises(SystemExit) as ended:
        tool('remove', folder, '3')
    assert ended.value.code == 1
