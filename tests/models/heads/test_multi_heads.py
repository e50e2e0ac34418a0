"""One harness through which every head and every option goes."""

import copy
import itertools
import tracemalloc

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from torch import nn

import mhc_plugin  # noqa: F401

CLASSES = 7
GROUPS = [[2, 0], [1], [4, 3, 5], [6]]
STAGES = [(0,), (1,), (1, 0), 1, 0, 0, 1]
POOLS = ('avg', 'max', 'lse')
CONNECTIONS = ('all', 'channels', 'stages')
FC_OPTIONS = [dict(), dict(hidden_channels=(6, 5))]
CONV_OPTIONS = [
    dict(conv_channels=4),
    dict(conv_channels=4, num_convs=0),
    dict(conv_channels=4, num_convs=2, kernel_size=5, norm_cfg=dict(type='GN', num_groups=2)),
    dict(conv_channels=4, norm_cfg=None, act_cfg=dict(type='LeakyReLU', negative_slope=0.2)),
    dict(conv_channels=None, num_convs=2, act_cfg=dict(type='Sigmoid')),
    dict(conv_channels=4, norm_cfg=dict(type='IN', affine=True)),
    dict(conv_channels=4, norm_cfg=None, act_cfg=None),
]
# The widest group first and the classes in order: slots of no class lie at the end alone.
IN_ORDER = [[0, 1], [2, 3], [4, 5], [6]]
ATTENTION_OPTIONS = [dict(dropout=0.0, num_attentions=1), dict(dropout=0.0)]
NORMALIZATIONS = (None, 'image', 'position', 'root')


def cases():
    """Every option with every connection and grouping, the default one with every pool."""
    for connection, groups in itertools.product(CONNECTIONS, (None, GROUPS, IN_ORDER)):
        heads = [('MultiHeadClsHead', o) for o in FC_OPTIONS]
        heads += [('ConvMultiHeadClsHead', o) for o in CONV_OPTIONS]
        heads += [('AttentionMultiHeadClsHead', o) for o in ATTENTION_OPTIONS]
        if groups is None:
            heads += [('ConvClsHead', o) for o in CONV_OPTIONS]
        for i, (name, option) in enumerate(heads):
            default = option in (FC_OPTIONS[0], CONV_OPTIONS[0])
            if groups is IN_ORDER and not default and option != ATTENTION_OPTIONS[1]:
                continue
            pools = POOLS if default else (POOLS[i % 3],)
            for pool in (None,) if name.startswith('Attention') else pools:
                cfg = dict(type=name, connection=connection, **option)
                if pool is not None:
                    cfg['pool'] = pool
                cfg['normalize'] = NORMALIZATIONS[(i + len(pool or '')) % 4]
                cfg['in_channels'] = (8, 13) if connection == 'stages' else 20
                if groups is not None:
                    cfg['head_groups'] = groups
                if connection == 'stages':
                    cfg['head_stages'] = (
                        [(0, 1)]
                        if name == 'ConvClsHead'
                        else (STAGES if groups is None else STAGES[:4])
                    )
                yield cfg


def case_id(cfg):
    return '-'.join(str(v) for k, v in cfg.items() if k not in ('in_channels', 'head_stages'))


def build(cfg, seed=0, randomise=True, **kwargs):
    torch.manual_seed(seed)
    head = MODELS.build(dict(cfg, num_classes=CLASSES, **kwargs))
    if randomise:  # biases and norms start at 0 and 1, where mistakes can hide
        for split in (heads := head.split_heads()):
            for p in split.parameters():
                nn.init.normal_(p, std=0.5)
        head.stack_heads(heads)
    return head


def features(cfg, dtype=torch.float64, n=5):
    shapes = [(8, 10, 8), (13, 5, 4)] if cfg['connection'] == 'stages' else [(20, 5, 4)]
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(n, *s, generator=generator, dtype=dtype) for s in shapes)


def samples(n=5):
    score = torch.randint(0, 2, (n, CLASSES), generator=torch.Generator().manual_seed(2)).float()
    return [DataSample().set_gt_score(s) for s in score]


def split_logits(head, splits, feats):
    logits = feats[0].new_empty(len(feats[0]), CLASSES)
    for group, split in zip(head.head_groups, splits):
        logits[:, group] = split(feats)
    return logits


ALL = list(cases())
POOLED = [cfg for cfg in ALL if 'pool' in cfg]


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
@pytest.mark.parametrize('training', [True, False])
def test_fused_equals_split(cfg, training):
    head = build(cfg).double().train(training)
    splits = head.split_heads()
    feats = features(cfg)
    fused_feats = tuple(f.clone().requires_grad_() for f in feats)
    split_feats = tuple(f.clone().requires_grad_() for f in feats)

    fused = head(fused_feats)
    split = split_logits(head, splits, split_feats)
    assert fused.shape == (5, CLASSES)
    torch.testing.assert_close(fused, split, rtol=0, atol=1e-10)

    target = torch.stack([s.gt_score for s in samples()]).double()
    loss = head.loss(fused_feats, samples())['loss']
    reference = F.binary_cross_entropy_with_logits(split, target, reduction='none').mean(0).sum()
    torch.testing.assert_close(loss, reference, rtol=0, atol=1e-10)

    loss.backward()
    reference.backward()
    for a, b in zip(fused_feats, split_feats):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-10)
    # Gradients are stacked as parameters are: write them into copies and compare the stacks.
    gradients = copy.deepcopy(head)
    for source, split in zip(splits, splits_of_gradients := gradients.split_heads()):
        for p, q in zip(source.parameters(), split.parameters()):
            q.data.copy_(p.grad)
    stacked = copy.deepcopy(head)
    with torch.no_grad():
        for p in stacked.parameters():
            p.zero_()
    stacked.stack_heads(splits_of_gradients)
    for (name, p), q in zip(head.named_parameters(), stacked.parameters()):
        torch.testing.assert_close(p.grad, q, rtol=0, atol=1e-10, msg=name)
    if training:  # two passes of the fused head, one of the split ones
        for split in splits:
            split(feats)
        moved = copy.deepcopy(head)
        moved.stack_heads(splits)
        for (name, a), b in zip(head.named_buffers(), moved.buffers()):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
def test_state_goes_both_ways(cfg):
    head, other = build(cfg), build(cfg, seed=5)
    other.stack_heads(head.split_heads())
    for (name, a), b in zip(head.state_dict().items(), other.state_dict().values()):
        assert torch.equal(a, b), name
    third = build(cfg, seed=6)
    third.load_state_dict(head.state_dict())
    feats = features(cfg, torch.float32)
    assert torch.equal(third.eval()(feats), head.eval()(feats))


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
def test_training_step_moves_every_parameter_and_no_padding(cfg):
    head = build(cfg)
    start = copy.deepcopy(head)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9)
    feats, losses = features(cfg, torch.float32), []
    for _ in range(3):
        loss = head.loss(feats, samples())['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for (name, p), q in zip(head.named_parameters(), start.parameters()):
        assert not torch.equal(p, q), name
    start.stack_heads(head.split_heads())
    for (name, p), q in zip(head.named_parameters(), start.parameters()):
        assert torch.equal(p, q), f'{name} moved where no head has a parameter'


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
def test_autocast_stays_close(cfg):
    head = build(cfg).eval()
    feats = features(cfg, torch.float32)
    with torch.autocast('cpu', torch.bfloat16):
        out = head(feats)
        loss = head.loss(feats, samples())['loss']
    assert loss.dtype == torch.float32
    expected = head(feats)
    tolerance = 0.1 * expected.abs().max().item()
    torch.testing.assert_close(out.float(), expected, rtol=0.1, atol=tolerance)


@pytest.mark.parametrize('cfg', ALL[::5], ids=case_id)
def test_graph_is_whole_and_exports(cfg):
    head = build(cfg).eval()
    feats = features(cfg, torch.float32)
    torch._dynamo.reset()
    compiled = torch.compile(head.forward, backend='aot_eager', fullgraph=True)
    torch.testing.assert_close(compiled(feats), head(feats))
    exported = torch.export.export(head, (feats,))
    torch.testing.assert_close(exported.module()(feats), head(feats))


# ---- references written out by hand


def pooled_by_hand(x, pool):
    if pool == 'avg':
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])
    if pool == 'max':
        return x.amax((2, 3))
    return ((10 * x).exp().mean((2, 3))).log() / 10


@pytest.mark.parametrize('pool', POOLS)
@pytest.mark.parametrize('classes', [1, 3, 7, 20])
def test_channel_slices_are_those_of_the_paper(pool, classes):
    head = MODELS.build(
        dict(
            type='MultiHeadClsHead',
            num_classes=classes,
            in_channels=20,
            connection='channels',
            pool=pool,
        )
    ).double()
    x = torch.randn(4, 20, 3, 3, dtype=torch.float64)
    for c, split in enumerate(head.split_heads()):
        part = slice(c * 20 // classes, (c + 1) * 20 // classes)
        linear = split.fc[-1]
        assert linear.weight.shape == (1, part.stop - part.start)
        expected = pooled_by_hand(x[:, part], pool) @ linear.weight.T + linear.bias
        torch.testing.assert_close(head((x,))[:, c : c + 1], expected)


def test_multifc_on_all_channels_is_one_linear_layer():
    head = MODELS.build(dict(type='MultiHeadClsHead', num_classes=3, in_channels=6))
    baseline = MODELS.build(dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=6))
    baseline.fc.weight.data.copy_(head.fc.weight.flatten(0, 1))
    baseline.fc.bias.data.copy_(head.fc.bias.flatten())
    x = torch.randn(4, 6, 5, 5)
    torch.testing.assert_close(head((x,)), baseline((x.mean((2, 3)),)))


@pytest.mark.parametrize('cfg', POOLED, ids=case_id)
def test_class_maps_are_feature_times_gradient(cfg):
    head = build(cfg).double().eval()
    feats = features(cfg)
    maps = head.class_maps(feats)
    inputs = head.pre_logits(feats)
    convs = getattr(head, 'convs', [nn.Identity()] * len(inputs))
    pooled_maps = [conv(x).detach().requires_grad_() for conv, x in zip(convs, inputs)]
    x = torch.cat([head.global_pool(x) for x in pooled_maps], 1)
    for layer in getattr(head, 'hidden', []):
        x = layer(x).relu()
    logits = head.to_class_order(head.fc(x))
    size = max((x.shape[2:] for x in pooled_maps), key=lambda s: s[0] * s[1])
    for c in range(CLASSES):
        expected = 0
        for x, g in zip(
            pooled_maps, torch.autograd.grad(logits[:, c].sum(), pooled_maps, retain_graph=True)
        ):
            part = x.shape[2] * x.shape[3] * (x * g).sum(1, keepdim=True)
            expected = expected + F.interpolate(part, size, mode='bilinear', align_corners=False)
        torch.testing.assert_close(maps[:, c], expected[:, 0].clamp(min=0), rtol=0, atol=1e-9)


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
def test_pooled_features_give_the_same_logits(cfg):
    head = build(cfg).eval()
    feats = (torch.zeros(5, 1, 2, 2), *features(cfg, torch.float32))
    if cfg['connection'] == 'stages':
        feats = feats[1:]
    assert (head.reduction is None) == head.spatial == (cfg['type'] != 'MultiHeadClsHead')
    if head.spatial:
        return
    pooled = tuple(head.reduction(x) for x in feats)
    assert all(x.dim() == 2 for x in pooled)
    torch.testing.assert_close(head(pooled), head(feats))


# ---- the attention head, and completeness


def test_attention_head_by_hand():
    """Written out for one image, one class after the other, at every position."""
    head = build(dict(type='AttentionMultiHeadClsHead', in_channels=20), num_attentions=2)
    head = head.double().eval()
    x = torch.randn(1, 20, 3, 4, generator=torch.Generator().manual_seed(3)).double().relu()
    x[0, :, 0] *= 0.1
    root = x[0].flatten(1).T.sqrt()  # (positions, channels)
    means = root.square().mean(1)
    least = means.mean() / 2
    assert 0 < (means < least).sum() < 12
    root = root / torch.stack([max(m, least) + 1e-5 for m in means])[:, None].sqrt()
    logits, maps = head.logits_and_maps((x,))
    assert torch.equal(head((x,)), logits)
    attention, linear = head.attentions[0], head.linears[0]
    g = root.mean(0).sqrt()
    for c in range(CLASSES):
        options = []
        for m in range(2):
            z = root @ attention.weight[c, m]
            e = (attention.sharpness[c, m] * z).exp()
            options.append(e / e.sum() * z)
        attended = max(options, key=lambda o: o.sum().item())
        v = linear.weight[c, 0]
        expected = attended.sum() + v @ g + head.bias[c, 0]
        torch.testing.assert_close(logits[0, c], expected)
        share = torch.where(g > 0, 1 / g, 0)
        by_hand = attended + root @ (v * share) / 12
        torch.testing.assert_close(maps[0, c].flatten() / 12, by_hand)


def test_attention_heads_start_alike():
    head = MODELS.build(
        dict(type='AttentionMultiHeadClsHead', num_classes=40, in_channels=64, num_attentions=2)
    )
    head.init_weights()
    first = head.attentions[0].weight[0]
    assert torch.equal(head.attentions[0].weight, first.expand(40, -1, -1))
    assert not torch.equal(first[0], first[1])
    assert first.std().item() == pytest.approx(0.001, rel=0.2)
    assert not head.linears[0].weight.any()
    assert not head.bias.any()
    assert (head.attentions[0].sharpness == 0.6).all()


def test_channels_are_dropped_at_all_positions_and_for_all_classes():
    """With one class's weights for all, one draw leaves their logits equal."""
    head = build(dict(type='AttentionMultiHeadClsHead', in_channels=20), randomise=False)
    head.attentions[0].weight.data[:] = torch.randn(20)
    x = torch.rand(3, 20, 3, 3)
    logits = head.train()((x,))
    torch.testing.assert_close(logits, logits[:, :1].expand_as(logits))
    assert not torch.equal(logits, head((x,)))
    assert torch.equal(head.eval()((x,)), head((x,)))


@pytest.mark.parametrize('cfg', ALL, ids=case_id)
def test_maps_and_bias_make_the_logit(cfg):
    """Log-sum-exp and the biases of hidden layers add what no position accounts for."""
    head = build(cfg).eval()
    logits, maps = head.logits_and_maps(features(cfg, torch.float32))
    assert maps.shape[:2] == logits.shape == (5, CLASSES)
    assert head.complete == (cfg.get('pool') != 'lse' and 'hidden_channels' not in cfg)
    difference = (maps.mean((2, 3)) + head.class_bias - logits).abs().max().item()
    assert (difference < 1e-5 * max(1, maps.abs().max().item())) == head.complete


@pytest.mark.parametrize('name', ['MultiHeadClsHead', 'AttentionMultiHeadClsHead'])
def test_heads_without_convolutions_list_no_channels(name):
    """Thousands of classes over thousands of channels cost their weights alone."""
    tracemalloc.start()
    head = MODELS.build(dict(type=name, num_classes=1000, in_channels=2000))
    python_memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert head.num_heads == 1000
    assert python_memory < 4 * 2**20  # a list of the heads' channels would take 16 MB
    assert not any(b.numel() > 1000 for b in head.buffers())


def test_split_heads_are_copies_with_dtype_and_format_kept():
    head = build(dict(type='ConvMultiHeadClsHead', in_channels=20, connection='all'))
    head.to(torch.bfloat16).to(memory_format=torch.channels_last).eval()
    split = head.split_heads()[1]
    conv = split.convs[0][3]
    assert conv.weight.dtype == torch.bfloat16
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert not split.training
    conv.weight.data.zero_()
    assert head.convs[0][3].weight.abs().min(0).values.any()
    assert {type(m) for m in split.modules() if not list(m.children())} >= {
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.Linear,
    }


# ---- predictions and dropout


def test_topk_prediction_breaks_ties_by_the_lower_index():
    head = build(dict(type='MultiHeadClsHead', in_channels=20, connection='all'), topk=3)
    predicted = head._get_predictions(torch.tensor([[0.0, 1, 1, 1, 1, 0, 0]]), None)[0]
    assert predicted.pred_label.tolist() == [1, 2, 3]


def test_dropout_works_in_training_only():
    head = build(dict(type='MultiHeadClsHead', in_channels=20, connection='all'), dropout=0.5)
    feats = features(dict(connection='all'), torch.float32)
    assert torch.equal(head.eval()(feats), head(feats))
    assert not torch.equal(head.train()(feats), head(feats))
    assert all(isinstance(s.fc[0], nn.Dropout) and s.fc[0].p == 0.5 for s in head.split_heads())
