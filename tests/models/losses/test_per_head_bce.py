import math

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from tool_process import spawn
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mhc_plugin.models.losses import PerHeadBCELoss
from mhc_plugin.utils.known_pairs import KnownPairs


def reference(logits, target, loss_weight=1.0, pos_weight=1.0, head_reduction='sum'):
    """The definition, in loops over classes and samples."""
    num_samples, num_classes = logits.shape
    loss_weight, pos_weight = (np.broadcast_to(w, num_classes) for w in (loss_weight, pos_weight))
    total = 0.0
    for c in range(num_classes):
        terms = []
        for n in range(num_samples):
            y, p = target[n, c].item(), torch.sigmoid(logits[n, c])
            if y != -1:
                terms.append(-(float(pos_weight[c]) * y * p.log() + (1 - y) * (1 - p).log()))
        if terms:
            total = total + float(loss_weight[c]) * sum(terms) / len(terms)
    return total / num_classes if head_reduction == 'mean' else total


def random_batch(num_samples=9, num_classes=5, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_samples, num_classes, generator=rng, dtype=torch.float64)
    target = torch.randint(-1, 2, (num_samples, num_classes), generator=rng).double()
    target[0] = torch.rand(num_classes, generator=rng)  # soft
    target[:, 3] = -1  # never known
    return logits.requires_grad_(), target


@pytest.mark.parametrize('head_reduction', ['sum', 'mean'])
@pytest.mark.parametrize('loss_weight', [1.0, 0.5, [1.0, 0.0, 2.0, 3.0, 0.25]])
@pytest.mark.parametrize('pos_weight', [None, 3.0, [1.0, 2.0, 0.5, 4.0, 0.0]])
def test_value_and_gradient_equal_the_definition(head_reduction, loss_weight, pos_weight):
    logits, target = random_batch()
    loss = PerHeadBCELoss(loss_weight, head_reduction, pos_weight)(logits, target)
    expected = reference(logits, target, loss_weight, pos_weight or 1.0, head_reduction)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits),
        torch.autograd.grad(expected, logits),
        rtol=1e-10,
        atol=1e-10,
    )


def test_value_by_hand():
    # At a logit of 0 every known term is log 2, whatever the target.
    target = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, -1.0]])
    assert PerHeadBCELoss()(torch.zeros(2, 3), target).item() == pytest.approx(2 * math.log(2))
    mean = PerHeadBCELoss(head_reduction='mean')(torch.zeros(2, 3), target)
    assert mean.item() == pytest.approx(2 / 3 * math.log(2))


def test_without_unknown_targets_it_is_pytorchs_loss():
    logits, target = torch.randn(6, 4), torch.randint(0, 2, (6, 4)).float()
    mean = nn.BCEWithLogitsLoss()(logits, target)
    torch.testing.assert_close(PerHeadBCELoss(head_reduction='mean')(logits, target), mean)
    torch.testing.assert_close(PerHeadBCELoss()(logits, target), 4 * mean)


# Whole vectors of a processor, some numbers left over, and more than one thread is given.
@pytest.mark.parametrize('shape', [(64, 3), (9, 5), (700, 61)])
@pytest.mark.parametrize('known', [1.0, 0.7])
@pytest.mark.parametrize('loss_weight', [0.5, 'per class'])
def test_batches_of_any_size(shape, known, loss_weight):
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=rng, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 2, shape, generator=rng)
    target[torch.rand(shape, generator=rng) > known] = -1
    weights = torch.linspace(0.1, 2, shape[1]).tolist() if loss_weight == 'per class' else 0.5
    loss = PerHeadBCELoss(weights)(logits, target)
    expected = 0.0
    for c, weight in enumerate(np.broadcast_to(weights, shape[1])):
        chosen = target[:, c] >= 0
        expected += weight * nn.functional.binary_cross_entropy_with_logits(
            logits[chosen, c], target[chosen, c].double()
        )
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan])
def test_an_unknown_target_hides_its_logit(value):
    logits = torch.zeros(2, 2)
    logits[0, 1] = value
    logits.requires_grad_()
    loss = PerHeadBCELoss(pos_weight=[2.0, 3.0])(logits, torch.tensor([[1, -1], [0, 1]]))
    loss.backward()
    assert loss.item() == pytest.approx((1.5 + 3) * math.log(2))
    assert logits.grad[0, 1] == 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('target', [torch.full((3, 2), -1.0), torch.zeros(0, 2)])
def test_nothing_known_gives_zero_and_zero_gradients(target):
    logits = torch.randn(len(target), 2, requires_grad=True)
    loss = PerHeadBCELoss(pos_weight=2.0)(logits, target)
    assert loss.item() == 0
    loss.backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_large_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = PerHeadBCELoss()(logits, torch.tensor([[0.0, 1.0]]))
    loss.backward()
    assert loss.item() == 2e4
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.bfloat16])
def test_targets_of_other_dtypes(dtype):
    logits, target = torch.randn(6, 4), torch.randint(0, 2, (6, 4))
    loss = PerHeadBCELoss()
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target.float()))


@pytest.mark.parametrize('shape', [(9,), (9, 5)])
def test_weight_scales_terms_and_not_the_divisor(shape):
    logits, target = random_batch()
    weight = torch.rand(shape, dtype=torch.float64)
    loss = PerHeadBCELoss()(logits, target, weight=weight)
    factor = weight.reshape(9, -1).expand(9, 5)
    expected = 0.0
    for n in range(9):
        alone = torch.full_like(target, -1.0)
        for c in range(5):
            if target[n, c] != -1:
                alone[n, c] = target[n, c]
                known = (target[:, c] != -1).sum()
                expected = expected + factor[n, c] * reference(logits, alone) / known
                alone[n, c] = -1
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize('shape', [(9, 5), (64, 5), (700, 64)])
def test_learned_weights_get_gradients(shape):
    logits, target = torch.randn(shape), torch.randint(0, 2, shape)
    weight = torch.rand(shape[0], requires_grad=True)
    loss = PerHeadBCELoss(loss_weight=[1.0] * shape[1])
    loss.loss_weight.requires_grad_()
    loss(logits, target, weight).backward()
    terms = nn.functional.binary_cross_entropy_with_logits(logits, target.float(), reduction='none')
    torch.testing.assert_close(weight.grad, terms.sum(1) / shape[0])
    expected = (terms * weight.detach()[:, None]).mean(0)
    torch.testing.assert_close(loss.loss_weight.grad, expected)


def test_a_batch_of_nothing_has_no_loss_whatever_its_weights():
    loss = PerHeadBCELoss()(torch.zeros(0, 2), torch.zeros(0, 2), weight=torch.ones(0))
    assert loss.item() == 0


def test_it_is_the_loss_of_mmpretrains_head():
    head = MODELS.build(
        dict(
            type='MultiLabelLinearClsHead',
            num_classes=3,
            in_channels=4,
            loss=dict(type='PerHeadBCELoss'),
        )
    )
    feats = (torch.randn(2, 4),)
    targets = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
    loss = head.loss(feats, [DataSample().set_gt_score(target) for target in targets])['loss']
    torch.testing.assert_close(loss, reference(head(feats), targets))

    loss = head.loss(feats, [DataSample().set_gt_label(label) for label in ([0], [1, 2])])['loss']
    torch.testing.assert_close(loss, reference(head(feats), targets.clamp(min=0)))


def test_weights_stay_out_of_checkpoints():
    assert PerHeadBCELoss(loss_weight=[1.0, 2.0], pos_weight=3.0).state_dict() == {}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_computes_in_float32_under_autocast(dtype):
    logits, target = torch.randn(64, 4).to(dtype), torch.randint(0, 2, (64, 4)).float()
    with torch.autocast('cpu', torch.bfloat16):
        loss = PerHeadBCELoss(loss_weight=0.7, pos_weight=[1.0, 2.0, 3.0, 4.0])(logits, target)
    assert loss.dtype == torch.float32
    expected = PerHeadBCELoss(0.7, pos_weight=[1.0, 2.0, 3.0, 4.0])(logits.float(), target)
    assert torch.equal(loss, expected)


def test_compiled_equals_eager():
    loss = PerHeadBCELoss(log_per_class=True)
    compiled = torch.compile(loss, backend='aot_eager')
    logits, target = random_batch()
    torch.testing.assert_close(compiled(logits, target), loss(logits, target))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(logits, target), logits),
        torch.autograd.grad(loss(logits, target), logits),
    )
    with pytest.raises(ValueError, match='`target`'):
        compiled(logits, target + 7)


@pytest.fixture
def message_hub():
    name = 'test_per_head_bce'
    yield MessageHub.get_instance(name)
    MessageHub._instance_dict.pop(name)


@pytest.mark.parametrize(
    ('class_names', 'keys'),
    [(None, ['0', '1', '2']), (['cat', 'dog', 'cow'], ['cat', 'dog', 'cow'])],
)
def test_each_class_is_logged(message_hub, class_names, keys):
    loss = PerHeadBCELoss(loss_weight=5.0, log_per_class=True, class_names=class_names)
    logits = torch.tensor([[0.0, 2.0, 1.0], [0.0, -1.0, 1.0]])
    loss(logits, torch.tensor([[1.0, 1.0, -1.0], [0.0, -1.0, -1.0]]))
    assert message_hub.get_scalar(f'train/bce/{keys[0]}').current() == pytest.approx(math.log(2))
    assert message_hub.get_scalar(f'train/bce/{keys[1]}').current() == pytest.approx(
        math.log(1 + math.exp(-2))
    )
    assert f'train/bce/{keys[2]}' not in message_hub.log_scalars


def test_nothing_is_logged_unasked_or_outside_training(message_hub):
    logits, target = torch.zeros(2, 3), torch.ones(2, 3)
    PerHeadBCELoss()(logits, target)
    PerHeadBCELoss(log_per_class=True).eval()(logits, target)
    assert not message_hub.log_scalars


class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.criterion = PerHeadBCELoss(log_per_class=True, class_names=['cat', 'dog'])

    def forward(self, inputs, targets, mode):
        return dict(loss=self.criterion(self.fc(inputs), targets))


def test_each_class_shows_in_log_and_tensorboard(tmp_path):
    event_accumulator = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator'
    )
    data = [dict(inputs=torch.randn(2), targets=torch.tensor([1.0, 0.0])) for _ in range(4)]
    runner = Runner(
        model=Linear(),
        work_dir=str(tmp_path),
        experiment_name='test_bce_in_log',
        train_dataloader=dict(
            dataset=data,
            sampler=dict(type='DefaultSampler'),
            batch_size=2,
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        visualizer=dict(
            type='Visualizer',
            name='test_bce_in_log',
            vis_backends=[dict(type='TensorboardVisBackend')],
        ),
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None),
    )
    runner.train()
    shown = runner.message_hub.get_scalar('train/bce/dog').current()

    assert f'bce/dog: {shown:.4f}' in next(tmp_path.glob('*/*.log')).read_text()
    events = event_accumulator.EventAccumulator(str(next(tmp_path.glob('*/vis_data'))))
    events.Reload()
    assert {'bce/cat', 'bce/dog'} <= set(events.Tags()['scalars'])
    assert events.Scalars('bce/dog')[-1].value == pytest.approx(shown)


NUM_CLASSES, NUM_FEATURES, HALF = 4, 3, 5


def distributed_case():
    rng = torch.Generator().manual_seed(1)
    inputs = torch.randn(2 * HALF, NUM_FEATURES, generator=rng, dtype=torch.float64)
    target = torch.randint(0, 2, (2 * HALF, NUM_CLASSES), generator=rng).double()
    target[:4, 0] = -1  # known once in the first half, five times in the second
    target[HALF:, 1] = -1  # in the first half only
    target[:, 2] = -1  # nowhere
    model = nn.Linear(NUM_FEATURES, NUM_CLASSES, dtype=torch.float64)
    nn.init.normal_(model.weight, generator=rng)
    nn.init.normal_(model.bias, generator=rng)
    return model, inputs, target


def train_half(rank, folder):
    model, inputs, target = distributed_case()
    model = DistributedDataParallel(model)
    half = slice(rank * HALF, (rank + 1) * HALF)
    criterion = PerHeadBCELoss(loss_weight=[1.0, 2.0, 3.0, 4.0], log_per_class=True)
    loss = criterion(model(inputs[half]), target[half])
    of_pairs = criterion(model(inputs[half]), KnownPairs.from_dense(target[half]))
    torch.testing.assert_close(of_pairs, loss)
    loss.backward()
    scalars = MessageHub.get_current_instance().log_scalars
    torch.save(
        dict(
            loss=loss.detach(),
            grads=[parameter.grad for parameter in model.parameters()],
            logged={key: float(scalar.current()) for key, scalar in scalars.items()},
        ),
        f'{folder}/{rank}.pth',
    )


def test_two_processes_give_the_gradient_of_the_global_mean(tmp_path, message_hub):
    spawn(train_half, (str(tmp_path),), 2)
    halves = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]

    model, inputs, target = distributed_case()
    loss = PerHeadBCELoss(loss_weight=[1.0, 2.0, 3.0, 4.0], log_per_class=True)(
        model(inputs), target
    )
    loss.backward()
    for half in halves:
        for grad, parameter in zip(half['grads'], model.parameters()):
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-6, atol=1e-6)
        assert half['logged'] == pytest.approx(
            {key: scalar.current() for key, scalar in message_hub.log_scalars.items()}
        )
    torch.testing.assert_close((halves[0]['loss'] + halves[1]['loss']) / 2, loss)
