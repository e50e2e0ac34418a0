from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner.priority import get_priority
from mmpretrain.registry import HOOKS
from tool_process import spawn
from torch import nn

from mhc_plugin.engine import SyncTrainedBuffersHook
from mhc_plugin.engine.hooks import sync_trained_buffers_hook
from mhc_plugin.models import PerHeadBCELoss

# Their mean over three processes is another number: 3 * x / 3 is not always x.
DRIFTING = torch.tensor([0.1, 0.7, 123.675, 57.375]) / 7


class Model(nn.Module):
    """Trained norms among what else keeps buffers."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.BatchNorm1d(2).eval()
        self.head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.InstanceNorm1d(2))
        self.synced = nn.SyncBatchNorm(2)
        self.loss = PerHeadBCELoss(loss_weight=DRIFTING.tolist())
        self.register_buffer('mean', DRIFTING.clone())
        self.register_buffer('mask', torch.tensor([True, False]))
        self.synced.running_mean.copy_(DRIFTING[:2])
        self.backbone.running_mean.copy_(DRIFTING[:2])


def step(model):
    SyncTrainedBuffersHook().after_train_iter(SimpleNamespace(model=model), batch_idx=0)


def train_in_three_processes(rank, folder):
    torch.manual_seed(0)
    model = Model()
    batches = torch.randn(5, 3, 8, 2, generator=torch.Generator().manual_seed(0))
    for batch in batches:
        model.head[1](batch[rank])
        step(model)
    torch.save(model.state_dict() | dict(loss_weight=model.loss.loss_weight), f'{folder}/{rank}.pt')
    # Without a trained norm nothing is sent: this would wait for the others for ever.
    if rank == 0:
        step(nn.Sequential(PerHeadBCELoss(loss_weight=[0.1, 0.7]), nn.BatchNorm1d(2).eval()))


def test_three_processes_agree_on_statistics_and_nothing_else_moves(tmp_path):
    spawn(train_in_three_processes, (str(tmp_path),), 3)
    first, *others = [torch.load(tmp_path / f'{rank}.pt') for rank in range(3)]
    for other in others:
        assert all(torch.equal(first[name], other[name]) for name in first)
    untouched = Model().state_dict() | dict(loss_weight=DRIFTING)
    moved = {name for name in first if not torch.equal(first[name], untouched[name])}
    random = {'head.0.weight', 'head.0.bias'}
    assert moved - random == {
        'head.1.running_mean',
        'head.1.running_var',
        'head.1.num_batches_tracked',
    }
    # What one process finds that averages the three batches of a step.
    batches = torch.randn(5, 3, 8, 2, generator=torch.Generator().manual_seed(0))
    mean = torch.zeros(2)
    for batch in batches:
        mean = 0.9 * mean + 0.1 * batch.mean((0, 1))
    torch.testing.assert_close(first['head.1.running_mean'], mean)


@pytest.fixture
def synced(monkeypatch):
    """What was averaged; `size` says how many processes there are."""
    processes = SimpleNamespace(calls=[], size=2)
    monkeypatch.setattr(sync_trained_buffers_hook, 'get_world_size', lambda: processes.size)
    monkeypatch.setattr(
        sync_trained_buffers_hook,
        'all_reduce_params',
        lambda buffers, op: processes.calls.append((buffers, op)),
    )
    return processes


def test_statistics_of_trained_norms_are_averaged(synced):
    model = Model()
    step(model)
    ((buffers, op),) = synced.calls
    assert op == 'mean'
    assert [id(buffer) for buffer in buffers] == [
        id(model.head[1].running_mean),
        id(model.head[1].running_var),
    ]


def test_nothing_to_do(synced):
    step(Model().eval())
    synced.size = 1
    step(Model())
    assert synced.calls == []


def test_before_the_averaged_model_copies_them():
    assert get_priority(SyncTrainedBuffersHook.priority) < get_priority(EMAHook.priority)
    assert HOOKS.get('SyncTrainedBuffersHook') is SyncTrainedBuffersHook


def test_averages_are_linear():
    """Averaging after every update equals averaging once at the end."""
    often, once = [nn.BatchNorm1d(3) for _ in range(2)], [nn.BatchNorm1d(3) for _ in range(2)]
    batches = torch.randn(4, 2, 8, 3, generator=torch.Generator().manual_seed(0))
    for batch_of_each in batches:
        for a, b, batch in zip(often, once, batch_of_each):
            a(batch), b(batch)
        mean = sum(norm.running_var for norm in often) / 2
        for norm in often:
            norm.running_var.copy_(mean)
    torch.testing.assert_close(often[0].running_var, sum(norm.running_var for norm in once) / 2)
