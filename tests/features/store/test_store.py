"""The cache folder: locks, list, remove, prune."""

import multiprocessing
import os
import re
import time

import numpy as np
import pytest
import torch

from mhc_plugin.features.store import (
    ChunkBuffer,
    EntryInUseError,
    EntryReader,
    FeatureStore,
    Layout,
    begin_entry,
    finish_entry,
    make_key,
    unshared,
    write_chunk,
)


def store_entry(store, seed, num_samples=4, complete=True, **more):
    description = dict(seed=seed, **more)
    entry = store.entry(make_key(description))
    layout = Layout(num_samples, 1, ((8,),), 'fp16', 4000)
    layout, missing = begin_entry(entry, description, layout)
    for number in missing:
        chunk = ChunkBuffer(layout, number)
        chunk.append((torch.full((len(chunk.rows), 8), seed),), [{}] * len(chunk.rows))
        write_chunk(entry, chunk)
    if complete:
        finish_entry(entry, description, layout)
    return entry


def age(entry, days):
    then = time.time() - days * 24 * 3600
    os.utime(entry.path / 'manifest.json', (then, then))


def test_remove_after_a_remove_that_was_killed(tmp_path, monkeypatch):
    store = FeatureStore(tmp_path / 'cache')
    store_entry(store, 1)

    class KilledError(BaseException):
        pass

    def kill(path, **kwargs):
        raise KilledError

    for _ in range(2):
        entry = store_entry(store, 1)
        with monkeypatch.context() as patch:
            # In the middle: it is out of sight, and lies about under another name.
            patch.setattr('mhc_plugin.features.store.store.shutil.rmtree', kill_late(kill))
            with pytest.raises(KilledError):
                store.remove(entry)
        assert store.entries() == []
    entry = store_entry(store, 1)
    assert store.remove(entry) > 0
    assert [path.name for path in store.root.iterdir()] == ['locks']


def kill_late(kill):
    import shutil

    original, calls = shutil.rmtree, []

    def rmtree(path, ignore_errors=False):
        calls.append(path)
        if len(calls) == 2:
            kill(path)
        original(path, ignore_errors=ignore_errors)

    return rmtree


def test_keys_are_short_and_depend_on_every_part():
    assert re.fullmatch('[0-9a-f]{32}', make_key(dict(a=1)))
    assert make_key(dict(a=1, b=2)) == make_key(dict(b=2, a=1))
    assert len({make_key(d) for d in (dict(), dict(a=1), dict(a=1.5), dict(a='1'), dict(b=1))}) == 5
    assert make_key(unshared('no name')) != make_key(unshared('no name'))


def test_entries_are_listed_the_last_used_first(tmp_path):
    store = FeatureStore(tmp_path / 'cache')
    assert store.entries() == []
    entries = [store_entry(store, seed) for seed in range(3)]
    for entry, days in zip(entries, (2, 3, 1)):
        age(entry, days)
    (store.root / 'something else').mkdir()
    assert [e.key for e in store.entries()] == [entries[i].key for i in (2, 0, 1)]
    EntryReader(entries[1])
    assert store.entries()[0].key == entries[1].key
    assert re.fullmatch(r'.*/cache holds 3 entries, \d\.\d KiB', store.report())


def test_entries_are_found_by_the_beginning_of_their_key(tmp_path):
    store = FeatureStore(tmp_path)
    one, other = store_entry(store, 1), store_entry(store, 2)
    assert store.find(one.key[:6]).key == one.key
    with pytest.raises(ValueError, match="beginning of one key, but '' fits several entries"):
        store.find('')
    with pytest.raises(ValueError, match=f"but 'xyz' fits no entry. There are .*{other.key}"):
        store.find('xyz')


def test_removed_entry_is_gone_and_its_reader_reads_on(tmp_path):
    store = FeatureStore(tmp_path)
    entry = store_entry(store, 1)
    reader, size = EntryReader(entry), entry.size()
    assert store.remove(entry) == size > 0
    assert store.entries() == []
    assert reader.gather(np.array([2]))[0].unique().item() == 1


def test_prune_removes_what_no_other_run_can_use(tmp_path):
    store = FeatureStore(tmp_path)
    kept = store_entry(store, 1)
    own = store_entry(store, 2, **unshared('a notebook'))
    (tmp_path / '.half.tmp').mkdir()
    assert [entry.key for entry in store.prune()] == [own.key]
    assert [entry.key for entry in store.entries()] == [kept.key]
    assert not (tmp_path / '.half.tmp').exists()


def test_prune_removes_what_was_not_used_for_long(tmp_path):
    store = FeatureStore(tmp_path)
    old, new = store_entry(store, 1), store_entry(store, 2)
    age(old, 31)
    age(new, 29)
    assert [entry.key for entry in store.prune(unused_days=30)] == [old.key]


def test_prune_keeps_what_was_used_last_up_to_a_size(tmp_path):
    store = FeatureStore(tmp_path)
    entries = [
        store_entry(store, seed, num_samples) for seed, num_samples in enumerate((4, 4000, 4))
    ]
    for days, entry in enumerate(entries):
        age(entry, days)
    limit = entries[0].size() + entries[2].size() + 100
    # The smallest is older than one that does not fit, so both go.
    assert [entry.key for entry in store.prune(max_bytes=limit)] == [e.key for e in entries[1:]]


def hold_lock(root, key, ready, release):
    store = FeatureStore(root)
    with store.lock(store.entry(key)):
        ready.set()
        release.wait(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of an entry."""
    context = multiprocessing.get_context('fork')
    store = FeatureStore(tmp_path)
    entry = store_entry(store, 1)
    ready, release = context.Event(), context.Event()
    process = context.Process(target=hold_lock, args=(tmp_path, entry.key, ready, release))
    process.start()
    assert ready.wait(60)
    yield store, entry, process, release
    process.kill()
    process.join()


def test_entry_in_use_is_neither_removed_nor_pruned(holder):
    store, entry, process, _ = holder
    with pytest.raises(EntryInUseError, match=f'is being written by process {process.pid} on '):
        store.remove(entry)
    assert store.prune(max_bytes=0) == []
    assert entry.is_complete()


def test_one_waits_for_the_other(holder):
    store, entry, process, release = holder
    told = []

    def on_wait(owner):
        told.append(owner)
        release.set()

    with store.lock(entry, on_wait):
        assert not process.is_alive() or process.join(60) is None
    assert told[0].startswith(f'process {process.pid} on ')


def test_lock_of_a_dead_process_is_taken_over(holder):
    store, entry, process, _ = holder
    process.kill()
    process.join()
    with store.lock(entry):
        pass
    assert store.remove(entry) > 0


def test_lock_is_released_when_something_raises(tmp_path):
    store = FeatureStore(tmp_path)
    entry = store.entry('abc')
    with pytest.raises(KeyError):
        with store.lock(entry):
            raise KeyError
    with store.lock(entry):
        pass
