"""Several processes hold a share of the features each, and get what one process gets."""

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from tiny_cache_run import make_cfg, make_images
from tool_process import spawn

from mhc_plugin.features import loader as loader_module
from mhc_plugin.features.store import EntryReader, FeatureStore, Layout
from mhc_plugin.features.store.chunks import ChunkBuffer, begin_entry, finish_entry, write_chunk

NUMBER = 2
# The last chunk is shorter, and chunks begin with rows of either process.
LAYOUT = Layout(10, 1, ((3,), None, (2, 2)), 'fp16', 3)


@pytest.fixture
def entry(tmp_path):
    entry = FeatureStore(tmp_path / 'cache').entry('0' * 32)
    begin_entry(entry, {}, LAYOUT)
    features = features_of_all()
    for number in range(LAYOUT.num_chunks):
        chunk, rows = ChunkBuffer(LAYOUT, number), LAYOUT.rows_of(number)
        chunk.append([f[rows.start : rows.stop] for f in features], [{}] * len(rows))
        write_chunk(entry, chunk)
    finish_entry(entry, {}, LAYOUT)
    return entry


def features_of_all():
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(10, 3, generator=rng), torch.empty(10, 0), torch.randn(10, 2, 2)]


# What each process asks for in its turn: other numbers of rows, those of one process alone, none.
REQUESTS = [([9, 0, 3, 3, 4], [1, 2]), ([0, 2, 4], [6, 8]), ([], [5, 7, 0]), ([], [])]


def gather_in_step(rank, entry):
    reader, whole = EntryReader(entry), EntryReader(entry)
    reader.move_to(torch.device('cpu'), rank, NUMBER)
    assert [len(held) for held in reader._on_device.values()] == [5, 5]
    for requests in REQUESTS:
        rows = np.array(requests[rank], np.int64)
        for got, expected in zip(reader.gather(rows), whole.gather(rows), strict=True):
            assert got.dtype == torch.float32
            assert torch.equal(got, expected)


def test_rows_come_from_those_who_hold_them(entry, tmp_path):
    spawn(gather_in_step, (entry,), NUMBER)


@pytest.mark.parametrize('number', [1, 2, 3, 4])
def test_shares_are_every_so_many_th_row(entry, number):
    whole = EntryReader(entry).gather(np.arange(10))
    for rank in range(number):
        reader = EntryReader(entry)
        reader.move_to(torch.device('cpu'), rank, number)
        for position, held in reader._on_device.items():
            assert torch.equal(held.float(), whole[position][rank::number])


def batches(loop):
    for epoch in range(2):
        loop.dataloader.sampler.set_epoch(epoch)
        for batch in loop.dataloader:
            yield batch['inputs'][0], [s.sample_idx for s in batch['data_samples']]


def train_batches(rank, folder, images):
    found = {}
    # A CPU's processes share mapped pages, GPUs have memory of their own.
    for name, fits in (('mapped', loader_module._fits), ('shares', lambda *args: True)):
        loader_module._fits = fits
        cfg = make_cfg(images, f'{folder}/{name}', cache_dir=f'{folder}/cache')
        torch.manual_seed(0)
        runner = Runner.from_cfg(cfg)
        loop = runner.build_train_loop(runner.cfg.train_cfg)
        loop.use_features('train', training=True)
        held = loop.dataloader.dataset.reader._on_device
        assert [len(rows) for rows in held.values()] == ([] if name == 'mapped' else [6])
        found[name] = list(batches(loop))
    # In validation the processes may have different numbers of batches: nobody can be asked.
    loop = runner.build_val_loop(runner.cfg.val_cfg)
    loop.use_features('val')
    assert not loop.dataloader.dataset.reader._on_device
    assert len(found['mapped']) == 2 * 2
    for mapped, shares in zip(found['mapped'], found['shares'], strict=True):
        assert torch.equal(mapped[0], shares[0])
        assert mapped[1] == shares[1]


def test_a_loop_of_two_processes_gets_the_same_batches(tmp_path):
    images = make_images(tmp_path / 'images')
    spawn(train_batches, (str(tmp_path), images), NUMBER)
