"""``tools/feature_cache.py`` and what it calls."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_cache_run import make_cfg, make_images, run

from mhc_plugin.cli.stored_features import parse_size
from mhc_plugin.features.store import FeatureStore

TOOL = Path(__file__).parents[2] / 'tools' / 'feature_cache.py'


@pytest.fixture
def store(tmp_path):
    """A cache with a complete entry and one that was begun."""
    images = make_images(tmp_path / 'images')
    run(make_cfg(images, tmp_path / 'a', val_images=images))
    run(make_cfg(images, tmp_path / 'b', val_images=images, storage='fp16'))
    store = FeatureStore(tmp_path / 'cache')
    begun = store.entries()[1]
    begun.write_manifest(begun.read_manifest()['description'], begun.layout(), complete=False)
    begun.mark_path(0).unlink()
    os.utime(begun.path / 'manifest.json', (1e9, 1e9))
    return store


@pytest.fixture
def tool(store, capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location('feature_cache_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv('COLUMNS', '80')

    def call(*args):
        monkeypatch.setattr(
            sys, 'argv', ['feature_cache.py', *args, '--cache-dir', str(store.root)]
        )
        with pytest.raises(SystemExit) as exit_code:
            module.main()
        captured = capsys.readouterr()
        return exit_code.value.code, captured.out + captured.err

    return call


def test_list(store, tool):
    code, text = tool('list')
    whole, begun = store.entries()
    first, second = (
        re.split('  +', line.strip())
        for line in text.splitlines()
        if line.strip().startswith((whole.key[:12], begun.key[:12]))
    )
    assert code == 0
    assert first[:6] == [whole.key[:12], '12', '1', '12', 'fp16', 'fp32']
    assert first[7] == 'complete'
    assert second[0] == begun.key[:12]
    assert second[7] == '0 of 1 chunks'
    assert second[8].endswith('days ago')
    assert f'{store.root.name} holds 2 entries' in text.replace('\n', '')


def test_the_tool_imports_no_framework(store):
    """Such an import takes seconds, and a list of entries a tenth of one."""
    code = f"""
import runpy, sys
sys.argv = ['feature_cache.py', 'list', '--cache-dir', {str(store.root)!r}]
try:
    runpy.run_path({str(TOOL)!r}, run_name='__main__')
except SystemExit as end:
    print(end.code, [name for name in ('torch', 'mmengine', 'mmpretrain') if name in sys.modules])
"""
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stderr == ''
    assert result.stdout.splitlines()[-1] == '0 []'
    assert store.entries()[0].key[:12] in result.stdout


def test_info(store, tool):
    code, text = tool('info', store.entries()[0].key[:5])
    facts = json.loads(text)
    assert code == 0
    assert facts['state'] == 'complete'
    assert facts['features'] == '12'
    assert facts['made_from']['storage'] == 'fp16'
    assert facts['made_from']['positions'] == [0]
    assert facts['made_from']['device'] == 'cpu'
    assert facts['made_from']['backbone']['code'] == 'tiny_cache_run.TinyBackbone'
    assert str(store.root.parent / 'images') not in text


def test_verify(store, tool):
    whole, begun = store.entries()
    code, text = tool('verify', whole.key)
    assert (code, text) == (0, f'{whole.key}: whole\n')
    code, text = tool('verify')
    assert code == 1
    assert f'{begun.key}: chunks [0] are missing or damaged' in text
    path = whole.path / '00000-0.npy'
    path.write_bytes(path.read_bytes()[:-1] + b'?')
    assert tool('verify', whole.key[:6]) == (1, f'{whole.key}: chunks [0] are missing or damaged\n')


def test_remove(store, tool):
    whole, begun = store.entries()
    code, text = tool('remove', whole.key[:8])
    assert code == 0
    assert text.startswith(f'{whole.key}: removed, ')
    assert [entry.key for entry in store.entries()] == [begun.key]
    code, text = tool('remove', 'xyz')
    assert code == 1
    assert "beginning of one key, but 'xyz' fits no entry" in text


def test_prune(store, tool):
    whole, begun = store.entries()
    code, text = tool('prune', '--unused-days', '30')
    assert code == 0
    assert f'{begun.key}: removed' in text
    assert 'holds 1 entry,' in text
    code, text = tool('prune', '--max-size', '1K')
    assert f'{whole.key}: removed' in text
    code, text = tool('prune', '--max-size', 'much')
    assert code == 1
    assert "Expected a size such as '500M' or '20G', but got 'much'." in text


def test_empty_cache(tmp_path, store, tool):
    for entry in store.entries():
        store.remove(entry)
    assert tool('verify') == (0, '')
    code, text = tool('list')
    assert code == 0
    assert 'holds 0 entries, 0 B' in ' '.join(text.split())


@pytest.mark.parametrize(
    ('text', 'size'),
    [('4096', 4096), ('2K', 2048), ('1.5 GiB', 3 << 29), ('20g', 20 << 30), ('1TB', 1 << 40)],
)
def test_sizes(text, size):
    assert parse_size(text) == size
