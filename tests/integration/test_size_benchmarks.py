"""The benchmarks of growth and of heads, on tiny sizes: what they say is so."""

import argparse
import sys

import pytest
import torch
from test_tools import TOOLS

sys.path.insert(0, str(TOOLS))

from benchmarks import heads, scale
from benchmarks.made_features import link_images


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run in this process, on images that are made once."""
    for name in ('fill', 'CPU_SHARE'):
        monkeypatch.setattr(scale.loader_module, name, getattr(scale.loader_module, name))
    link_images(tmp_path / 'images', 40)

    def run(**setting):
        setting = dict(length=40, channels=4, classes=50, known=5) | setting
        return scale.run(str(tmp_path / 'images'), str(tmp_path / 'cache'), **setting)

    return run


def test_growth_is_that_of_a_run_through_the_cache(run, monkeypatch):
    time_epochs = scale.time_epochs
    monkeypatch.setattr(
        scale, 'time_epochs', lambda runner: [*time_epochs(runner), (3e-3, 4e-4), (2e-3, 9e-4)]
    )
    monkeypatch.setattr(scale, 'Clocks', lambda: argparse.Namespace(seconds=lambda: (1e-3, 1e-4)))
    found = run(epochs=2, checkpoints=True)
    assert found['targets'] == 'known pairs'
    assert found['target_mib'] == (41 * 8 + 40 * 5 * 3) / 2**20
    # Medians of all epochs but the first, of 40 images.
    assert found['us'] == pytest.approx([50.0, 10.0])
    assert found['checkpoint'][0] == f'{50 * 4 + 50}'
    assert found['checkpoint'][-1] == 'equal'
    again = run(classes=5, trust_mtime=True, mapped=True)
    assert again['targets'] == 'matrix'
    assert 'us' not in again


def test_runs_take_turns_and_their_times_are_medians(monkeypatch, tmp_path):
    times = iter([(5, 1), (7, 3), (1, 9), (2, 4), (3, 2), (4, 8)])
    asked = []

    def run_apart(folder, cache, **setting):
        asked.append(setting['length'])
        return dict(start=next(times), peak_mib=len(asked))

    monkeypatch.setattr(scale, 'run_apart', run_apart)
    found = scale.in_turns(3, tmp_path, 'cache', {key: dict(length=key) for key in (10, 20)})
    assert asked == [10, 20] * 3
    assert found == {10: dict(start=[3, 2], peak_mib=1), 20: dict(start=[4, 4], peak_mib=2)}


def test_epochs_on_a_gpu_stand_beside_the_products_alone(run, tmp_path):
    setting = dict(images=str(tmp_path / 'images'), cache_dir=str(tmp_path / 'gpu'), length=40)
    row = scale.on_gpu('cpu', channels=4, classes=50, known=50, **setting)
    assert row[:2] == ['40', '4']
    epoch, alone, ratio = (float(cell.replace(',', '')) for cell in row[2:])
    assert ratio == pytest.approx(epoch / alone, abs=1e-3)
    assert 0 < ratio < 1


def test_heads_of_a_size_take_turns_and_what_takes_too_long_is_told_from_the_size_before(
    monkeypatch,
):
    monkeypatch.setattr(heads, 'CHANNELS', 8)
    args = argparse.Namespace(heads=['MultiFC', 'MultiConv'], classes=[2, 4], rounds=1)
    x = torch.rand(2, 8, 3, 3)
    rows = heads.sizes(args, x)
    assert [row[:3] for row in rows] == [
        ['MultiFC', '2', str(2 * 8 + 2)],
        ['MultiFC', '4', str(4 * 8 + 4)],
        ['MultiConv', '2', f'{2 * (16 * 8 + 16 * 16 * 9 + 4 * 16 + 17):,}'],
        ['MultiConv', '4', f'{4 * (16 * 8 + 16 * 16 * 9 + 4 * 16 + 17):,}'],
    ]
    assert all(len(row) == 7 and '(' not in ''.join(row) for row in rows)
    monkeypatch.setattr(heads, 'MOST_SECONDS', -1.0)
    monkeypatch.setattr(heads, 'medians', lambda calls, *args, **kwargs: dict.fromkeys(calls, 3.0))
    for row in heads.sizes(args, x)[1::2]:
        assert row[2:6] == ['', '', '', '(6,000)']
