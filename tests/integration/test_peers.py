"""The table of peers on a tiny data set: every head trains, is measured, and is not repeated."""

import json
import sys

import pytest
from rich.text import Text
from test_tools import TINY, TOOLS

sys.path.insert(0, str(TOOLS))

import benchmark
from benchmarks import peers
from benchmarks.peer_heads import PEERS


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Run the command in this process; give the record's table as one dict per row."""

    def run(*words):
        record = tmp_path / 'record.json'
        words = ['peers', str(TINY), '--size', '16', *words, '--record', str(record)]
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *words, '--work-dir', str(tmp_path)])
        benchmark.timing.SHOWN.clear()
        benchmark.main()
        (table,) = json.loads(record.read_text())['scores']
        return [dict(zip(table['columns'], row)) for row in table['rows']]

    return run


def test_every_head_has_a_row(command, monkeypatch):
    rows = command('--seeds', '0', '1')
    assert [row['head'] for row in rows] == list(PEERS)
    for row in rows:
        assert row['seeds'] == '2'
        assert '±' in row['mAP']
        if row['head'] == 'ML-Decoder':
            assert row['GridPG'] == '-'
            continue
        assert 0 <= float(Text.from_markup(row['GridPG']).plain.split()[0]) <= 100
        assert (row['mAP below attention'] == '') == (row['head'] == 'attention')
    assert sum('[bold]' in row['mAP'] for row in rows) >= 1
    # What adds up to the logit, always, for every head that pools or attends.
    complete = {row['head']: row['completeness'] for row in rows}
    for name in (
        'linear = MultiFC, avg',
        'linear, by root',
        'B-cos linear',
        'MultiConv',
        peers.OURS,
    ):
        assert complete[name] == '100.0'

    monkeypatch.setattr(peers, 'train', None)
    again = command('--seeds', '0', '1', '2', '--stored')
    measured = ['head', 'mAP', 'top-4', 'GridPG', 'Swap', 'mAP below attention', 'parameters']
    assert [[row[k] for k in measured] for row in again] == [
        [row[k] for k in measured] for row in rows
    ]


def test_another_setting_is_another_run(command, monkeypatch):
    name = 'linear = MultiFC, avg'
    (before,) = command('--seeds', '0', '--peers', name)
    monkeypatch.setitem(PEERS, name, peers.Peer(PEERS[name].head, dict(lr=1.0)))
    (after,) = command('--seeds', '0', '--peers', name)
    assert after['mAP'] != before['mAP']
