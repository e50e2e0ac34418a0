"""The exchange of a loader: who waits for whom, what is read without a lock, what goes to a GPU."""

import errno
import os
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from tiny_cache_run import TinyBackbone, make_cfg, make_images, run
from torch.utils.data import DataLoader

from mhc_plugin.features import loader as loader_module
from mhc_plugin.features.dataset import FeatureDataset, replace_dataset
from mhc_plugin.features.store import EntryInUseError, EntryReader, FeatureStore, Layout
from mhc_plugin.utils.batch import Features


@pytest.fixture
def loop(images, tmp_path):
    """A loop whose features are not stored yet."""
    cfg = make_cfg(images, tmp_path / 'a')
    cfg.train_dataloader.batch_size = 5
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    return runner.build_train_loop(runner.cfg.train_cfg)


def again(loop, cfg_changes=()):
    """The same, as a later run sees it."""
    cfg = loop.runner.cfg.copy()
    cfg.experiment_name += ' again'
    torch.manual_seed(0)
    runner = Runner.from_cfg(cfg)
    return runner.build_train_loop(runner.cfg.train_cfg)


# ---- locks


def test_complete_features_are_read_without_a_lock_in_a_folder_that_nobody_may_write(
    loop, monkeypatch
):
    loop.use_features('train', training=True)
    stored = loop.dataloader.dataset.reader.gather(np.arange(12))[0]
    second = again(loop)
    forbid_writing(monkeypatch)
    TinyBackbone.num_images = 0
    second.use_features('train', training=True)
    assert TinyBackbone.num_images == 1  # to see the shapes
    assert torch.equal(second.dataloader.dataset.reader.gather(np.arange(12))[0], stored)


def test_features_that_have_to_be_written_where_nobody_may_are_refused_in_a_sentence(
    loop, monkeypatch, tmp_path
):
    forbid_writing(monkeypatch)
    with pytest.raises(
        ValueError,
        match=r'`cache_dir` to be a folder that can be written to, since \w+ has to be, but got '
        r'.*cache \(Read-only file system\). Choose another with `--cache-dir`',
    ):
        loop.use_features('train', training=True)


def forbid_writing(monkeypatch):
    """As root one may write anywhere, so this stands for a file system that is read-only."""

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    for name in ('mkdir', 'replace', 'utime'):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr('filelock.FileLock.acquire', refuse)


def test_readers_do_not_wait_for_one_another(loop):
    loop.use_features('train', training=True)
    (entry,) = FeatureStore(loop.cache.cache_dir).entries()
    second = again(loop)
    with FeatureStore(loop.cache.cache_dir).lock(entry):
        second.use_features('train', training=True)  # would wait for ever
    assert len(second.dataloader.dataset) == 12


def test_the_lock_is_held_until_the_features_are_open(loop, monkeypatch):
    held = []
    store = FeatureStore(loop.cache.cache_dir)

    class NotedReader(EntryReader):
        def __init__(self, entry):
            super().__init__(entry)
            # In another thread: a lock may be taken twice in one.
            thread = threading.Thread(target=lambda: held.append(is_held(store, entry)))
            thread.start()
            thread.join()

    monkeypatch.setattr(loader_module, 'EntryReader', NotedReader)
    loop.use_features('train', training=True)
    assert held == [True]


def is_held(store, entry):
    try:
        with store.lock(entry):
            return False
    except EntryInUseError:
        return True


def test_features_that_are_removed_while_they_are_looked_at_are_stored_anew(loop, monkeypatch):
    loop.use_features('train', training=True)
    store = FeatureStore(loop.cache.cache_dir)
    tries = []

    class LateReader(EntryReader):
        def __init__(self, entry):
            tries.append(entry)
            if len(tries) == 1:
                store.remove(entry)
            super().__init__(entry)

    monkeypatch.setattr(loader_module, 'EntryReader', LateReader)
    second = again(loop)
    second.use_features('train', training=True)
    assert len(tries) == 2
    assert len(second.dataloader.dataset.reader.gather(np.arange(12))[0]) == 12


def test_begun_features_are_still_locked_and_finished(loop):
    loop.use_features('train', training=True)
    (entry,) = FeatureStore(loop.cache.cache_dir).entries()
    entry.write_manifest(entry.read_manifest()['description'], entry.layout(), complete=False)
    entry.mark_path(0).unlink()
    second = again(loop)
    second.use_features('train', training=True)
    assert entry.is_complete()


# ---- to a GPU, without one


@contextmanager
def cuda_memory(monkeypatch, free, reserved, allocated):
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'mem_get_info', lambda device: (free, 10**12))
        patch.setattr(torch.cuda, 'memory_reserved', lambda device: reserved)
        patch.setattr(torch.cuda, 'memory_allocated', lambda device: allocated)
        yield


def test_features_fit_into_half_of_what_is_free_and_of_what_torch_keeps(monkeypatch):
    layout, device = Layout(100, 1, ((50,),), 'fp16', 100), torch.device('cuda')
    needed = 100 * 50 * 2
    for memory, fits in (
        (dict(free=2 * needed + 1, reserved=0, allocated=0), True),
        (dict(free=2 * needed, reserved=0, allocated=0), False),
        (dict(free=0, reserved=3 * needed, allocated=needed - 1), True),
        (dict(free=0, reserved=3 * needed, allocated=needed), False),
        (dict(free=needed, reserved=needed, allocated=needed), False),
    ):
        with cuda_memory(monkeypatch, **memory):
            assert loader_module._fits(layout, device, 1) is fits
    with cuda_memory(monkeypatch, free=needed, reserved=0, allocated=0):
        # The share of each of several processes.
        assert loader_module._fits(layout, device, 2) is False
        assert loader_module._fits(layout, device, 3) is True


def test_features_of_one_process_fit_into_a_share_of_the_main_memory(monkeypatch):
    layout, device = Layout(100, 1, ((50,),), 'fp16', 100), torch.device('cpu')
    free = layout.num_bytes / loader_module.CPU_SHARE
    for difference, fits in ((0, False), (1, True)):
        memory = int(free) + difference
        monkeypatch.setattr(loader_module, '_free_memory', lambda memory=memory: memory)
        assert loader_module._fits(layout, device, 1) is fits
        # Several share the pages of the files.
        assert loader_module._fits(layout, device, 2) is False
    assert loader_module.CPU_SHARE * 2**30 > 2**20


def test_free_memory_is_that_of_the_machine_or_less():
    whole = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    assert 0 < loader_module._free_memory() <= whole


@pytest.fixture
def on_fake_cuda(loop, monkeypatch):
    """Use stored features with a model that says it is on a GPU."""
    loop.use_features('train', training=True)
    stored = loop.dataloader

    def use(fits, pin_memory=True):
        second = again(loop)
        moved = []
        monkeypatch.setattr(loader_module, '_fits', lambda *args: fits)
        monkeypatch.setattr(
            FeatureDataset, 'move_to', lambda self, device, *share: moved.append(device.type)
        )
        second.dataloader.pin_memory = pin_memory
        # The key is that of a CPU.
        monkeypatch.setattr(
            loader_module.FeaturePlan, 'make', plan_of(stored, loop.cache.cache_dir)
        )
        monkeypatch.setattr(
            loader_module.FeatureExtractor, 'device', torch.device('cuda'), raising=True
        )
        second.use_features('train', training=True)
        return second.dataloader, moved

    return use


def plan_of(loader, cache_dir):
    (entry,) = FeatureStore(cache_dir).entries()
    manifest = entry.read_manifest()
    plan = loader_module.FeaturePlan(entry.key, manifest['description'], entry.layout(), 0)
    return lambda *args: plan


@pytest.mark.parametrize('pin_memory', [True, False])
def test_features_that_do_not_fit_are_fetched_ahead_and_pinned(on_fake_cuda, pin_memory):
    loader, moved = on_fake_cuda(fits=False, pin_memory=pin_memory)
    assert loader.num_ahead == 2
    assert loader.pin_memory is pin_memory
    assert moved == []


def test_features_that_fit_are_moved_and_not_pinned(on_fake_cuda):
    loader, moved = on_fake_cuda(fits=True)
    assert loader.num_ahead == 0
    assert loader.pin_memory is False
    assert moved == ['cuda']


@pytest.mark.parametrize('fits', [True, False])
def test_on_a_cpu_nothing_is_pinned_or_fetched_ahead(loop, monkeypatch, fits):
    monkeypatch.setattr(loader_module, '_fits', lambda *args: fits)
    loop.dataloader.pin_memory = True
    loop.use_features('train', training=True)
    assert bool(loop.dataloader.dataset.reader._on_device) is fits
    assert loop.dataloader.num_ahead == 0
    assert loop.dataloader.pin_memory is False


def test_fetching_ahead_gives_the_same_batches_from_another_thread(loop, monkeypatch):
    images = loop.dataloader
    loop.use_features('train', training=True)
    dataset, threads = loop.dataloader.dataset, []
    near, far = (replace_dataset(images, dataset, is_far) for is_far in (False, True))
    far.pin_memory = True
    monkeypatch.setattr(torch.Tensor, 'pin_memory', lambda self: self + 0)
    original = FeatureDataset.__getitems__

    def note(self, indices):
        threads.append(threading.get_ident())
        return original(self, indices)

    monkeypatch.setattr(FeatureDataset, '__getitems__', note)
    for epoch in range(2):
        images.sampler.set_epoch(epoch)
        expected, batches = list(near), list(far)
        assert len(batches) == len(far) == 3
        for ours, theirs in zip(batches, expected):
            assert type(ours['inputs']) is Features
            assert torch.equal(ours['inputs'][0], theirs['inputs'][0])
            ids = [[s.sample_idx for s in batch['data_samples']] for batch in (ours, theirs)]
            assert ids[0] == ids[1]
            targets = [batch['data_samples'].targets for batch in (ours, theirs)]
            assert torch.equal(*targets)
    assert {t == threading.get_ident() for t in threads[3:6]} == {False}


def test_fetching_ahead_draws_the_order_in_the_thread_of_the_run(loop):
    images = loop.dataloader
    loop.use_features('train', training=True)

    class Drawing(torch.utils.data.Sampler):
        def __iter__(self):
            assert threading.current_thread() is threading.main_thread()
            yield from torch.randint(12, (12,)).tolist()

        def __len__(self):
            return 12

    images = DataLoader(images.dataset, 4, sampler=Drawing())
    loader = replace_dataset(images, loop.dataloader.dataset, is_far=True)
    assert sum(len(batch['data_samples']) for batch in loader) == 12


def test_fetching_ahead_is_bounded_and_ends_with_the_loop(loop, monkeypatch):
    images = loop.dataloader
    loop.use_features('train', training=True)
    loader = replace_dataset(images, loop.dataloader.dataset, is_far=True)
    loader.num_ahead = 1
    before = threading.active_count()
    for _ in loader:
        break
    assert threading.active_count() == before


def test_an_error_of_fetching_is_raised(loop, monkeypatch):
    images = loop.dataloader
    loop.use_features('train', training=True)
    loader = replace_dataset(images, loop.dataloader.dataset, is_far=True)
    monkeypatch.setattr(FeatureDataset, '__getitems__', lambda self, indices: {}['inputs'])
    with pytest.raises(KeyError):
        list(loader)


def test_run_with_fetching_ahead_ends_as_without(tmp_path, monkeypatch):
    images = make_images(tmp_path / 'images')
    weights = []
    for far in (False, True):
        monkeypatch.setattr(
            loader_module,
            'replace_dataset',
            lambda loader, dataset, is_far, far=far: replace_dataset(loader, dataset, far),
        )
        runner = run(make_cfg(images, tmp_path / f'{far}', head=dict(dropout=0.5)))
        weights.append(runner.model.head.fc.weight)
    assert torch.equal(*weights)
