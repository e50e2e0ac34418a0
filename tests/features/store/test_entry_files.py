"""Entries on disk: written in chunks, read by rows, found damaged, resumed after any kill."""

import errno
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch

from mhc_plugin.features.store import (
    ChunkBuffer,
    Entry,
    EntryReader,
    FeatureStore,
    Layout,
    begin_entry,
    files,
    finish_entry,
    manifest,
    write_chunk,
)

DESCRIPTION = dict(weights='abc')
SHAPES = (None, (3, 2, 2), (5,))


@pytest.fixture(autouse=True)
def no_flushing(monkeypatch):
    """Flushing guards against power cuts, which no test here makes."""
    monkeypatch.setattr(os, 'fsync', lambda fd: None)


def make_layout(storage='fp16', chunk_rows=4, num_samples=5, views=2):
    return Layout(num_samples, views, SHAPES, storage, chunk_rows)


def features_of(rows):
    """Features that tell their row, exact in float16."""
    rows = torch.tensor(list(rows), dtype=torch.float32)
    maps = rows.view(-1, 1, 1, 1) + torch.arange(12.0).view(3, 2, 2) / 16
    return torch.full((len(rows), 7), 9.0), maps, rows.view(-1, 1) - torch.arange(5.0) / 8


def fill(entry, layout, description=DESCRIPTION, written=None):
    layout, missing = begin_entry(entry, description, layout)
    for number in missing:
        chunk = ChunkBuffer(layout, number)
        for row in chunk.rows:
            chunk.append(features_of([row]), [dict(row=row)])
        assert chunk.is_full
        write_chunk(entry, chunk)
        if written is not None:
            written.append(number)
    finish_entry(entry, description, layout)


def content(entry):
    return {path.name: path.read_bytes() for path in sorted(entry.path.iterdir())}


@pytest.mark.parametrize('storage', ['fp16', 'fp32'])
def test_rows_come_back(tmp_path, storage):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout(storage))
    reader = EntryReader(entry)
    rows = np.array([9, 0, 4, 3, 9])
    nothing, maps, vectors = reader.gather(rows)
    _, expected_maps, expected_vectors = features_of(rows)
    assert nothing.shape == (5, 0)
    assert maps.dtype == vectors.dtype == torch.float32
    assert torch.equal(maps, expected_maps)
    assert torch.equal(vectors, expected_vectors)
    assert [reader.sample(row)['row'] for row in rows] == rows.tolist()


def test_features_kept_on_a_device_are_the_same(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout())
    reader, moved = EntryReader(entry), EntryReader(entry)
    moved.move_to(torch.device('cpu'))
    rows = np.array([9, 0, 4, 3, 9])
    for ours, theirs in zip(moved.gather(rows), reader.gather(rows)):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


def test_files_are_plain_npy_files(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout())
    mapped = np.load(entry.path / '00002-1.npy', mmap_mode='r')
    assert isinstance(mapped, np.memmap)
    assert mapped.dtype == np.float16
    assert np.array_equal(mapped, features_of([8, 9])[1].numpy())
    manifest = json.loads((entry.path / 'manifest.json').read_text())['content']
    assert manifest['description'] == DESCRIPTION
    assert manifest['complete'] is True


def test_entry_with_features_of_no_size(tmp_path):
    entry = Entry(tmp_path / 'key')
    layout = Layout(2, 1, ((0,),), 'fp32', 2)
    _, missing = begin_entry(entry, DESCRIPTION, layout)
    chunk = ChunkBuffer(layout, missing[0])
    chunk.append((torch.empty(2, 0),), [{}, {}])
    write_chunk(entry, chunk)
    finish_entry(entry, DESCRIPTION, layout)
    assert EntryReader(entry).gather(np.array([1]))[0].shape == (1, 0)


@pytest.mark.parametrize(
    ('num_samples', 'views', 'shape', 'chunk_rows', 'num_chunks'),
    [
        (100, 1, (2048,), 256, 1),
        (10_000, 1, (2048,), 256, 40),
        (10_000, 8, (2048,), 1250, 64),
        (1_700_000, 1, (1280,), 4096, 416),
        (10_000, 1, (1280, 7, 7), 256, 40),
        (10_000, 1, (512, 56, 56), 83, 121),
    ],
)
def test_chunks_are_small_in_time_memory_and_number(
    num_samples, views, shape, chunk_rows, num_chunks
):
    layout = Layout.plan(num_samples, views, (shape,), 'fp16')
    assert (layout.chunk_rows, layout.num_chunks) == (chunk_rows, num_chunks)
    assert sum(len(layout.rows_of(c)) for c in range(layout.num_chunks)) == layout.num_rows
    assert layout.num_bytes == num_samples * views * np.prod(shape) * 2


def test_incomplete_entry_is_not_read(tmp_path):
    entry = Entry(tmp_path / 'key')
    with pytest.raises(FileNotFoundError, match='holds no complete entry'):
        EntryReader(entry)
    layout = make_layout()
    begin_entry(entry, DESCRIPTION, layout)
    with pytest.raises(FileNotFoundError, match='holds no complete entry'):
        EntryReader(entry)
    with pytest.raises(RuntimeError, match=r'Chunks \[0, 1, 2\] of .* are missing'):
        finish_entry(entry, DESCRIPTION, layout)


class KilledError(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def kill_at(monkeypatch):
    """Kill at the k-th write, in its middle or right after it; give the number of writes."""
    original = files.write_file

    def install(k, torn):
        count = [0]

        def write_file(path, write):
            count[0] += 1
            if count[0] == k and torn:
                # What a kill in the middle of a write leaves behind.
                path.with_name(f'.{path.name}.1.tmp').write_bytes(b'half')
                raise KilledError
            original(path, write)
            if count[0] == k:
                raise KilledError

        monkeypatch.setattr(files, 'write_file', write_file)
        return count

    return install


def test_killed_at_any_write_it_resumes_and_ends_the_same(tmp_path, kill_at):
    undisturbed = Entry(tmp_path / 'undisturbed' / 'key')
    writes = kill_at(None, False)
    fill(undisturbed, make_layout())
    num_writes = writes[0]
    assert num_writes == 3 * 4 + 2  # 3 chunks of 2 arrays, samples and mark; 2 manifests
    for torn in (False, True):
        for k in range(1, num_writes + 1):
            entry = Entry(tmp_path / f'{k}{torn}' / 'key')
            before, after = [], []
            kill_at(k, torn)
            with pytest.raises(KilledError):
                fill(entry, make_layout(), written=before)
            assert entry.is_complete() == (k == num_writes and not torn)
            kill_at(None, False)
            fill(entry, make_layout(), written=after)
            assert content(entry) == content(undisturbed)
            committed = max(0, (k - 1 - torn) // 4) if k > 1 else 0
            assert after == list(range(min(committed, 3), 3))


def test_killed_again_and_again_it_gets_done(tmp_path, kill_at):
    undisturbed, entry = Entry(tmp_path / 'undisturbed' / 'key'), Entry(tmp_path / 'key')
    fill(undisturbed, make_layout())
    kills = 0
    for _ in range(10):
        kill_at(5, True)
        try:
            fill(entry, make_layout())
            break
        except KilledError:
            kills += 1
    # The first kill undoes a chunk whose mark was not yet written, the last the final manifest.
    assert kills == 4
    assert content(entry) == content(undisturbed)


def flip_last_bit(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = dict(
    truncated=lambda path: os.truncate(path, path.stat().st_size - 1),
    flipped=lambda path: flip_last_bit(path),
    emptied=lambda path: path.write_bytes(b''),
    removed=lambda path: path.unlink(),
)


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize(
    'name', ['00001-1.npy', '00001-2.npy', '00001-samples.jsonl', '00001.json']
)
def test_damaged_chunk_is_found_and_rebuilt(tmp_path, damage, name):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout())
    whole, written = content(entry), []
    damage(entry.path / name)
    assert FeatureStore(tmp_path).verify(entry) == [1]
    with pytest.raises(FileNotFoundError, match=r'Chunks \[1\] of .* are missing or damaged'):
        EntryReader(entry)
    fill(entry, make_layout(), written=written)
    assert written == [1]
    assert content(entry) == whole
    assert FeatureStore(tmp_path).verify(entry) == []


def swap_shape(path):
    array = np.load(path)
    np.save(path, array.reshape(array.shape[::-1]))


@pytest.mark.parametrize(
    'damage',
    [DAMAGES['truncated'], DAMAGES['emptied'], DAMAGES['removed'], swap_shape],
    ids=['truncated', 'emptied', 'removed', 'another header'],
)
def test_damage_of_a_complete_entry_is_seen_by_size_and_header_alone(tmp_path, damage, monkeypatch):
    entry, written = Entry(tmp_path / 'key'), []
    fill(entry, make_layout())
    whole = content(entry)
    damage(entry.path / '00001-1.npy')
    monkeypatch.setattr(manifest, 'hash_file', None)  # nothing is read
    with pytest.raises(FileNotFoundError, match=r'Chunks \[1\] of .* are missing or damaged'):
        EntryReader(entry)
    monkeypatch.undo()
    fill(entry, make_layout(), written=written)
    assert written == [1]
    assert content(entry) == whole


def test_chunks_of_a_killed_process_are_read_once_and_those_of_a_complete_entry_never(
    tmp_path, monkeypatch
):
    entry, written, read = Entry(tmp_path / 'key'), [], []
    fill(entry, make_layout())
    whole = content(entry)
    entry.write_manifest(DESCRIPTION, make_layout(), complete=False)
    flip_last_bit(entry.path / '00002-1.npy')
    original = manifest.hash_file
    monkeypatch.setattr(
        manifest, 'hash_file', lambda path: read.append(path.name) or original(path)
    )
    fill(entry, make_layout(), written=written)
    assert written == [2]
    assert set(read) >= {'00000-1.npy', '00000-2.npy', '00001-samples.jsonl', '00002-1.npy'}
    assert content(entry) == whole
    read.clear()
    fill(entry, make_layout())
    EntryReader(entry)
    assert read == []


@pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES)
def test_damaged_manifest_is_rebuilt_from_whole_chunks(tmp_path, damage):
    entry, written = Entry(tmp_path / 'key'), []
    fill(entry, make_layout())
    whole = content(entry)
    damage(entry.path / 'manifest.json')
    fill(entry, make_layout(), written=written)
    assert written == []
    assert content(entry) == whole


def test_kill_during_a_repair_is_repaired(tmp_path, kill_at):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout())
    whole = content(entry)
    for k in range(1, 7):
        os.truncate(entry.path / '00001-2.npy', 3)
        kill_at(k, True)
        with pytest.raises(KilledError):
            fill(entry, make_layout())
        assert not entry.is_complete() or k == 1
        kill_at(None, False)
        fill(entry, make_layout())
        assert content(entry) == whole


def test_begun_entry_keeps_its_chunks(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout(chunk_rows=4))
    layout, missing = begin_entry(entry, DESCRIPTION, make_layout(chunk_rows=3))
    assert layout.chunk_rows == 4
    assert missing == []


def test_chunks_of_another_layout_do_not_count(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout(chunk_rows=4))
    (entry.path / 'manifest.json').unlink()
    layout, missing = begin_entry(entry, DESCRIPTION, make_layout(chunk_rows=3))
    assert layout.chunk_rows == 3
    assert missing == [0, 1, 2, 3]


def test_reader_keeps_what_it_mapped(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout())
    reader, rows = EntryReader(entry), np.arange(10)
    # A repair replaces files, it does not write into them.
    (entry.path / '00001.json').unlink()
    inode = (entry.path / '00001-1.npy').stat().st_ino
    fill(entry, make_layout())
    assert (entry.path / '00001-1.npy').stat().st_ino != inode
    shutil.rmtree(entry.path)
    assert torch.equal(reader.gather(rows)[2], features_of(rows)[2])
    assert reader.sample(9) == dict(row=9)


def test_reader_holds_no_file_descriptors(tmp_path):
    entry = Entry(tmp_path / 'key')
    fill(entry, make_layout(chunk_rows=1))
    before = len(os.listdir('/proc/self/fd'))
    reader = EntryReader(entry)
    assert len(os.listdir('/proc/self/fd')) == before
    assert len(reader.gather(np.array([0]))) == 3


def test_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple('usage', 'total used free')(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
    entry = Entry(tmp_path / 'key')
    with pytest.raises(
        OSError,
        match=r'The features need 192.3 KiB, but .* has only 1000 B '
        r'left. Free some space .* another folder with `--cache-dir`',
    ) as caught:
        begin_entry(entry, DESCRIPTION, make_layout())
    assert caught.value.errno == errno.ENOSPC
    assert list(entry.path.iterdir()) == []


def test_disk_that_fills_up_meanwhile_breaks_nothing(tmp_path, monkeypatch):
    entry, undisturbed = Entry(tmp_path / 'key'), Entry(tmp_path / 'undisturbed' / 'key')
    fill(undisturbed, make_layout())
    writes = [0]

    def fsync(fd):
        writes[0] += 1
        if writes[0] == 9:
            raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(OSError, match='No space left'):
        fill(entry, make_layout())
    assert not entry.is_complete()
    assert not list(entry.path.glob('.*'))
    fill(entry, make_layout())
    assert content(entry) == content(undisturbed)
