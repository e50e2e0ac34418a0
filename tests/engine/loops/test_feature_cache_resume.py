"""Killed at any point, while features are stored or later, a run ends as if nothing had been."""

import os
import random
import threading
import time

import pytest
import torch
from mmengine.hooks import Hook
from mmpretrain.registry import HOOKS
from tiny_cache_run import CROP, FLIP, TinyBackbone, make_cfg, pipeline, run

from mhc_plugin.features.store import FeatureStore, files, manifest

EPOCHS = 5
ITERATIONS = 3 * EPOCHS


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@HOOKS.register_module(force=True)
class KillHook(Hook):
    """Kills a run in the middle of an epoch."""

    at = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == KillHook.at:
            raise KilledError


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(manifest, 'MIN_CHUNK_ROWS', 5)
    TinyBackbone.num_images = 0
    KillHook.at = None


def cfg_of(images, work_dir, **kwargs):
    """Random transforms, dropout and batch norm: whatever could come out differently."""
    cfg = make_cfg(
        images,
        work_dir,
        epochs=EPOCHS,
        transforms=pipeline(CROP, FLIP),
        views=2,
        storage='fp16',
        head=dict(type='ConvMultiHeadClsHead', conv_channels=4, dropout=0.3),
        **kwargs,
    )
    cfg.custom_hooks = [dict(type='EMAHook'), dict(type='KillHook')]
    return cfg


def final_state(runner):
    """Weights, averages and momenta."""
    ema = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
    return dict(
        model=runner.model.state_dict(),
        ema=ema.ema_model.state_dict(),
        optimizer=runner.optim_wrapper.state_dict()['state'],
    )


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, other[name])
        else:
            assert torch.equal(value, other[name]), name


def features(tmp_path, name='cache'):
    return {
        str(path.relative_to(tmp_path / name)): path.read_bytes()
        for path in sorted((tmp_path / name).glob('*/*'))
        if path.parent.name != 'locks'
    }


@pytest.fixture
def kill_at_write(monkeypatch):
    """Kill at the k-th write of the cache; give the number of writes."""
    original = files.write_file

    def install(k):
        count = [0]

        def write_file(path, write):
            count[0] += 1
            if count[0] == k:
                raise KilledError
            original(path, write)

        monkeypatch.setattr(files, 'write_file', write_file)
        return count

    return install


def test_killed_while_features_are_stored(images, tmp_path, kill_at_write):
    undisturbed = final_state(run(cfg_of(images, tmp_path / 'undisturbed')))
    stored = features(tmp_path)
    count = kill_at_write(None)
    run(cfg_of(images, tmp_path / 'all', cache_dir=str(tmp_path / 'all writes')))
    # 24 rows in 5 chunks and 12 in 3 of validation, 3 files each, and two manifests each.
    assert count[0] == 8 * 3 + 4
    for k in (1, 2, 5, 11, 17, 22, 28):
        work_dir = tmp_path / f'killed{k}'
        cache = dict(cache_dir=str(tmp_path / f'cache{k}'))
        kill_at_write(k)
        with pytest.raises(KilledError):
            run(cfg_of(images, work_dir, **cache))
        kill_at_write(None)
        cfg = cfg_of(images, work_dir, **cache)
        cfg.resume = True
        assert_equal(final_state(run(cfg)), undisturbed)
        assert features(tmp_path, f'cache{k}') == stored


def test_what_was_stored_is_not_computed_again(images, tmp_path, kill_at_write):
    kill_at_write(1 + 3 * 3 + 1)
    with pytest.raises(KilledError):
        run(cfg_of(images, tmp_path / 'a'))
    kill_at_write(None)
    TinyBackbone.num_images = 0
    cfg = cfg_of(images, tmp_path / 'b')
    cfg.log_level = 'INFO'
    run(cfg)
    assert TinyBackbone.num_images == (24 - 15) + 12 + 2  # rest, validation, and to see shapes
    assert '3 of 5 chunks are there' in next((tmp_path / 'b').glob('*/*.log')).read_text()


def test_killed_in_training_at_five_random_points(images, tmp_path):
    undisturbed = final_state(run(cfg_of(images, tmp_path / 'undisturbed')))
    points = random.Random(0).sample(range(ITERATIONS), 5)
    for point in points:
        work_dir = tmp_path / f'{point}'
        KillHook.at = point
        with pytest.raises(KilledError):
            run(cfg_of(images, work_dir))
        KillHook.at = None
        TinyBackbone.num_images = 0
        cfg = cfg_of(images, work_dir)
        # An epoch that was begun is begun again; a run killed in the first one starts anew.
        cfg.resume = (work_dir / 'last_checkpoint').is_file()
        assert cfg.resume == (point >= 3)
        resumed = run(cfg)
        assert TinyBackbone.num_images == 2
        assert_equal(final_state(resumed), undisturbed)


def test_killed_several_times_in_one_run(images, tmp_path):
    undisturbed = final_state(run(cfg_of(images, tmp_path / 'undisturbed')))
    for point in (4, 7, 10, 14, None):
        KillHook.at = point
        cfg = cfg_of(images, tmp_path / 'a')
        cfg.resume = (tmp_path / 'a' / 'last_checkpoint').is_file()
        try:
            resumed = run(cfg)
        except KilledError:
            continue
    assert_equal(final_state(resumed), undisturbed)


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'remove'])
def test_damaged_file_is_found_when_a_run_begins(images, tmp_path, damage):
    undisturbed = final_state(run(cfg_of(images, tmp_path / 'undisturbed')))
    stored = features(tmp_path)
    path = (
        max(FeatureStore(tmp_path / 'cache').entries(), key=lambda entry: entry.size()).path
        / '00001-0.npy'
    )
    data = bytearray(path.read_bytes())
    if damage == 'remove':
        path.unlink()
    else:
        data[-3] ^= 4
        path.write_bytes(data[:-1] if damage == 'truncate' else data)
    if damage == 'flip':  # which no size shows
        store = FeatureStore(tmp_path / 'cache')
        assert [store.verify(entry) for entry in store.entries()].count([1]) == 1
    TinyBackbone.num_images = 0
    assert_equal(final_state(run(cfg_of(images, tmp_path / 'again'))), undisturbed)
    assert TinyBackbone.num_images == 5 + 2
    assert features(tmp_path) == stored


def test_one_builds_and_the_other_waits(images, tmp_path, monkeypatch):
    """A second run that wants features which a first one is storing."""
    cfg = cfg_of(images, tmp_path / 'a')
    cfg.log_level = 'INFO'
    undisturbed = final_state(run(cfg))
    stored = features(tmp_path)
    for path in (tmp_path / 'cache').glob('*/00003*'):
        path.unlink()
    store = FeatureStore(tmp_path / 'cache')
    entry = max(store.entries(), key=lambda entry: entry.layout().num_rows)
    held = threading.Event()

    def hold():
        with store.lock(entry):
            held.set()
            time.sleep(1)

    first = threading.Thread(target=hold)
    first.start()
    assert held.wait(60)
    cfg = cfg_of(images, tmp_path / 'b')
    cfg.log_level = 'INFO'
    assert_equal(final_state(run(cfg)), undisturbed)
    first.join()
    log = next((tmp_path / 'b').glob('*/*.log')).read_text()
    assert f'process {os.getpid()} on ' in log
    assert 'is storing the same features; waiting for it' in log
    assert features(tmp_path) == stored
