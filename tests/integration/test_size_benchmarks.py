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


def test_growth_is_that_of_a_run_through_the_cache(run):
    found = run(epochs=2, checkpoints=True)
    assert found['targets'] == 'known pairs'
    assert found['target_mib'] == (41 * 8 + 40 * 5 * 3) / 2**20
    assert len(found['epochs']) == 2
    assert found['checkpoint'][0] == f'{50 * 4 + 50}'
    assert found['checkpoint'][-1] == 'equal'
    again = run(classes=5, trust_mtime=True, mapped=True)
    assert again['targets'] == 'matrix'
    assert 'epochs' not in again


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
