"""Records say how they were made, and pages are what records say."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import mhc_plugin.apis
from mhc_plugin.cli import records

ROOT = Path(__file__).parents[2]


class Images:
    """A dataset of two files."""

    metainfo = dict(classes=('cat', 'dog'))

    def __init__(self, folder, targets=((1, 0), (0, 1)), order=1):
        self.folder, self.targets, self.order = folder, targets, order

    def __len__(self):
        return len(self.targets)

    def get_data_info(self, idx):
        info = dict(img_path=str(self.folder / f'{idx}.bin'), gt_score=np.array(self.targets[idx]))
        return dict(list(info.items())[:: self.order], sample_idx=idx)


@pytest.fixture
def images(tmp_path):
    def make(name, content=(b'a', b'b'), **options):
        (tmp_path / name).mkdir(exist_ok=True)
        for i, own in enumerate(content):
            (tmp_path / name / f'{i}.bin').write_bytes(own)
        return Images(tmp_path / name, **options)

    return make


def test_data_are_known_by_content(images):
    own = records.data_hash(images('a'))
    assert records.data_hash(images('b', order=-1)) == own
    assert records.data_hash(images('c', content=(b'a', b'c'))) != own
    assert records.data_hash(images('d', content=(b'b', b'a'))) != own
    assert records.data_hash(images('e', targets=((1, 0), (0, -1)))) != own
    assert records.data_hash(images('f', targets=((1, 0),))) != own


def test_summary():
    found = records.summarise([dict(a=1.0, b=5.0), dict(a=3.0)])
    assert found['a'] == dict(mean=2.0, std=pytest.approx(2**0.5), values=[1.0, 3.0])
    assert found['b'] == dict(mean=5.0, std=None, values=[5.0])


def test_record_says_how_it_was_made(tmp_path, monkeypatch):
    monkeypatch.setenv('MHC_DATA_ROOT', str(tmp_path / 'data'))
    monkeypatch.setattr('sys.argv', [str(ROOT / 'tools' / 'x.py'), f'{tmp_path}/data/a b', '/x/y'])
    path = tmp_path / 'results' / 'x.json'
    records.write_record(path, dict(mAP=1.5), seconds=2.04, seeds=[0, 1], data='d')
    record = records.read_record(path)
    assert record['command'] == 'python tools/x.py "$MHC_DATA_ROOT"/\'a b\' y'
    assert str(tmp_path) not in path.read_text()
    assert (record['name'], record['seeds'], record['data']) == ('x', [0, 1], 'd')
    assert (record['seconds'], record['scores']) == (2.0, dict(mAP=1.5))
    assert {'python', 'torch', 'numpy'} <= record['versions'].keys()
    assert not record['stale']
    monkeypatch.setattr(records, 'source_hashes', lambda: dict(record['code'], other='1'))
    assert not records.read_record(path)['stale']
    record['code'].popitem()
    assert records.read_record(path)['stale']


def test_a_record_is_stale_by_the_code_that_it_builds_on():
    sources, package = records.source_hashes(), records.PACKAGE.name
    code = records.code_behind(mhc_plugin.apis.sweep.__module__, sources)
    for name in ('apis.train', 'models.heads.base', 'features.store.chunks', 'functional.solver'):
        assert code[f'{package}.{name}'] == sources[f'{package}.{name}']
    for name in ('apis.heads', 'apis.reproduce', 'analysis.road'):
        assert f'{package}.{name}' in sources
        assert f'{package}.{name}' not in code
    assert not any(name.startswith(f'{package}.cli') for name in sources)


def test_records_of_several_runs():
    a, b = (dict(commit=c, code=dict(x='1', y=y)) for c, y in (('a', '2'), ('b', '3')))
    assert records.merged([a, dict(a)]) == a
    assert records.merged([a, b]) == dict(commit='a, b', code=dict(x='1', y='2, 3'))


def test_what_is_no_record(tmp_path):
    path = tmp_path / 'x.json'
    with pytest.raises(FileNotFoundError, match=r'The record .*x.json is missing'):
        records.read_record(path)
    path.write_text('[1')
    with pytest.raises(ValueError, match=r'Expected .*x.json to be a record in JSON'):
        records.read_record(path)
    path.write_text('{"command": "", "commit": ""}')
    with pytest.raises(ValueError, match='to have code, versions, machine, date, seeds, data'):
        records.read_record(path)


class TestPages:
    @pytest.fixture
    def tool(self, tmp_path, monkeypatch):
        """The tool on a copy of the pages and records."""
        spec = importlib.util.spec_from_file_location('tables', ROOT / 'tools' / 'write_tables.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in ('docs', 'results'):
            shutil.copytree(ROOT / name, tmp_path / name)
        for name in ('README.md', 'RESULTS.md'):
            shutil.copy(ROOT / name, tmp_path)
        monkeypatch.setattr(module, 'ROOT', tmp_path)

        def call(*args):
            monkeypatch.setattr('sys.argv', ['write_tables.py', *args])
            return module.main()

        return call

    def test_are_what_records_say(self, tool):
        assert tool('--check') == 0

    def test_edited_digit(self, tool, tmp_path, capsys):
        page = tmp_path / 'README.md'
        text = page.read_text()
        digit = text.index('±') + 4
        changed = '9' if text[digit] != '9' else '8'
        page.write_text(text[:digit] + changed + text[digit + 1 :])
        assert tool('--check') == 1
        assert 'Not as the records say: README.md.' in capsys.readouterr().err
        assert tool() == 0
        assert tool('--check') == 0
        # It is marked anew which records are stale.
        stale = ' **Stale**: the code has changed since.'
        assert page.read_text().replace(stale, '') == text.replace(stale, '')

    def test_edited_record(self, tool, tmp_path, capsys):
        path = tmp_path / 'results' / 'maps_connections.json'
        record = json.loads(path.read_text())
        next(iter(record['scores'].values()))['multi-label/mAP']['mean'] += 1
        path.write_text(json.dumps(record))
        assert tool('--check') == 1
        assert 'Not as the records say: results.md.' in capsys.readouterr().err

    def test_edited_row_of_the_paper_s_tables(self, tool, tmp_path, capsys):
        page = tmp_path / 'RESULTS.md'
        text = page.read_text()
        digit = re.search(r'\d \| ', text).start()
        page.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
        assert tool('--check') == 1
        assert 'Not as the records say: RESULTS.md.' in capsys.readouterr().err
        assert tool() == 0
        assert tool('--check') == 0

    def test_drawn_report_has_every_row(self, tool, tmp_path):
        path = tmp_path / 'results' / 'tables.json'
        record = json.loads(path.read_text())
        record['scores']['rows'][0]['metrics']['multi-label/mAP'][0] += 1
        path.write_text(json.dumps(record))
        assert tool() == 0
        rows = re.findall(r'^\| (?!---|part|row)', (tmp_path / 'RESULTS.md').read_text(), re.M)
        page = (tmp_path / 'docs' / 'report.html').read_text()
        assert len(rows) > 250
        assert len(re.findall('<tr><td>', page.partition('Loss by epoch')[0])) == len(rows)

    def test_figure_of_other_scores(self, tool, tmp_path, capsys):
        path = tmp_path / 'results' / 'learning_rate_multifc.json'
        record = json.loads(path.read_text())
        record['scores']['settings'][0]['metrics']['multi-label/mAP']['mean'] += 1
        path.write_text(json.dumps(record))
        drawn = (tmp_path / 'docs' / 'learning-rate.svg').read_text()
        assert tool('--check') == 1
        assert 'learning-rate.svg' in capsys.readouterr().err
        assert tool() == 0
        assert tool('--check') == 0
        assert (tmp_path / 'docs' / 'learning-rate.svg').read_text() != drawn

    def test_missing_record(self, tool, tmp_path, capsys):
        (tmp_path / 'results' / 'speed_heads.json').unlink()
        assert tool('--check') == 1
        error = capsys.readouterr().err
        assert error.startswith('speed.md: The record ')
        assert 'speed_heads.json is missing' in error

    def test_stale_record_is_named_and_marked(self, tool, tmp_path, capsys, monkeypatch):
        tool()
        monkeypatch.setattr(records, 'source_hashes', dict)
        capsys.readouterr()
        assert tool('--check') == 0
        assert 'paper_voc2007.json' in capsys.readouterr().out
        tool()
        page = (tmp_path / 'docs' / 'paper.md').read_text()
        assert page.count('**Stale**: the code has changed since.') == page.count('Record [') >= 3

    def test_unknown_table(self, tool, tmp_path, capsys):
        (tmp_path / 'docs' / 'new.md').write_text('<!-- table: none -->\n<!-- end -->')
        assert tool('--check') == 1
        assert "but got 'none'" in capsys.readouterr().err
