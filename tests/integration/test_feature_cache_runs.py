"""Whole runs through the feature cache, in processes of their own."""

import os
import signal
import socket
from pathlib import Path

import pytest
import torch

from mhc_plugin import apis
from mhc_plugin.features.store import FeatureStore, files, manifest

HERE = Path(__file__).parent
TOOLS = HERE.parents[1] / 'tools'
pytestmark = pytest.mark.slow


@pytest.fixture
def config_file(tiny_config, tmp_path):
    """The tiny config with small chunks; no dropout, which two processes draw on their own."""
    path = tmp_path / 'cached.py'
    tiny_config(
        model__head__dropout=0.0,
        custom_imports=dict(imports=['mhc_plugin', 'tiny_parts', 'small_chunks']),
        experiment_name='cached',
        log_level='INFO',
    ).dump(path)
    return path


@pytest.fixture
def train(run_tool, config_file, tmp_path, environment):
    """Train with ``tools/train.py`` through a cache."""

    def call(name, *args, cache='cache', returncode=0, **variables):
        environment.update({key: str(value) for key, value in variables.items()})
        try:
            process = run_tool(
                TOOLS / 'train.py',
                config_file,
                '--work-dir',
                tmp_path / name,
                '--cache-features',
                '--views',
                2,
                '--cache-dir',
                tmp_path / cache,
                *args,
            )
        finally:
            for key in variables:
                environment.pop(key)
        assert process.returncode == returncode, process.stderr[-3000:]
        return tmp_path / name

    return call


def chunks(root):
    """All files of the entries, the manifests included."""
    return {
        f'{entry.key}/{path.name}': path.read_bytes()
        for entry in FeatureStore(root).entries()
        for path in entry.path.iterdir()
    }


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_two_processes_store_and_train_as_one(
    train, run, config_file, state_dict, log_of, tmp_path
):
    one = state_dict(train('one') / 'epoch_3.pth')
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    process = run(
        'env',
        f'PORT={port}',
        TOOLS / 'dist_train.sh',
        config_file,
        2,
        '--work-dir',
        tmp_path / 'two',
        '--cache-features',
        '--views',
        2,
        '--cache-dir',
        tmp_path / 'other_cache',
    )
    assert process.returncode == 0, process.stderr[-3000:]
    assert chunks(tmp_path / 'other_cache') == chunks(tmp_path / 'cache')
    two = state_dict(tmp_path / 'two' / 'epoch_3.pth')
    assert max((two[name] - one[name]).abs().max() for name in one) < 1e-5
    # Three of five chunks of 80 rows fall to the first process.
    assert 'Features (train): 48 images in ' in log_of(tmp_path / 'two')
    # From a standard deviation of 0.01: they have moved.
    assert one['head.fc.weight'].abs().max() > 0.05


def test_killed_at_a_write_and_in_training(train, state_dict, tmp_path):
    undisturbed = state_dict(train('undisturbed') / 'epoch_3.pth')
    for write in (4, 17):
        cache = f'cache{write}'
        train('killed', cache=cache, returncode=-signal.SIGKILL, KILL_AT_WRITE=write)
        assert list((tmp_path / cache).glob('*/.*.tmp'))
        resumed = state_dict(train('killed', '--resume', cache=cache) / 'epoch_3.pth')
        assert equal(resumed, undisturbed)
        assert chunks(tmp_path / cache) == chunks(tmp_path / 'cache')
        for path in (tmp_path / 'killed').glob('*.pth'):
            os.remove(path)


def test_checkpoint_of_the_cache_tests_on_images(train, config_file, tmp_path, monkeypatch):
    work_dir = train('cached', '--storage', 'fp32')
    # Loading the config imports `small_chunks`, whose changes must end with this test.
    for module, name in ((files, 'write_file'), (manifest, 'MIN_CHUNK_ROWS')):
        monkeypatch.setattr(module, name, getattr(module, name))
    cfg = apis.load_config(config_file, dict(experiment_name='test'))
    on_images = apis.test(cfg, work_dir / 'epoch_3.pth', work_dir=tmp_path / 'test')
    cfg.test_cfg = dict(
        type='FeatureCacheTestLoop', cache=dict(cache_dir=str(tmp_path / 'cache'), storage='fp32')
    )
    cfg.experiment_name = 'test again'
    cached = apis.test(cfg, work_dir / 'epoch_3.pth', work_dir=tmp_path / 'again')
    assert cached == pytest.approx(on_images, abs=1e-4)
