from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner.priority import get_priority
from mmpretrain.registry import HOOKS
from torch import nn

from mhc_plugin.engine import SyncTrainedBuffersHook
from mhc_plugin.engine.hooks import sync_trained_buffers_hook


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.BatchNorm1d(2).eval()
        self.head = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))


@pytest.fixture
def synced(monkeypatch):
    """What was averaged; `processes` says how many there are."""
    calls = []
    processes = SimpleNamespace(calls=calls, size=2)
    monkeypatch.setattr(sync_trained_buffers_hook, 'get_world_size', lambda: processes.size)
    monkeypatch.setattr(
        sync_trained_buffers_hook,
        'all_reduce_params',
        lambda buffers, op: calls.append((buffers, op)),
    )
    return processes


def test_statistics_of_trained_modules_are_averaged(synced):
    model = Model()
    SyncTrainedBuffersHook().after_train_iter(SimpleNamespace(model=model), batch_idx=0)
    ((buffers, op),) = synced.calls
    assert op == 'mean'
    # Neither the frozen backbone's nor the integer count of batches.
    assert [id(buffer) for buffer in buffers] == [
        id(model.head[1].running_mean),
        id(model.head[1].running_var),
    ]


def test_nothing_to_do(synced):
    hook = SyncTrainedBuffersHook()
    hook.after_train_iter(SimpleNamespace(model=Model().eval()), batch_idx=0)
    synced.size = 1
    hook.after_train_iter(SimpleNamespace(model=Model()), batch_idx=0)
    assert synced.calls == []


def test_before_the_averaged_model_copies_them():
    assert get_priority(SyncTrainedBuffersHook.priority) < get_priority(EMAHook.priority)
    assert HOOKS.get('SyncTrainedBuffersHook') is SyncTrainedBuffersHook


def test_averages_are_linear():
    """Averaging after every update equals averaging once at the end."""
    often, once = [nn.BatchNorm1d(3) for _ in range(2)], [nn.BatchNorm1d(3) for _ in range(2)]
    batches = torch.randn(4, 2, 8, 3, generator=torch.Generator().manual_seed(0))
    for step in batches:
        for a, b, batch in zip(often, once, step):
            a(batch), b(batch)
        mean = sum(norm.running_var for norm in often) / 2
        for norm in often:
            norm.running_var.copy_(mean)
    torch.testing.assert_close(often[0].running_var, sum(norm.running_var for norm in once) / 2)
