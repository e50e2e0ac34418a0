import copy
import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from mhc_plugin.analysis.measures import evaluate_maps, metrics_for, with_random_head
from mhc_plugin.analysis.one_pass import run_models
from mhc_plugin.analysis.road import _choose, _ranks, road
from mhc_plugin.analysis.swap_test import SwappedSplices, swap_test
from mhc_plugin.apis import load_model
from mhc_plugin.apis import test as run_test
from mhc_plugin.datasets.images import dataset_with_test_pipeline
from mhc_plugin.models.heads import MultiHeadClsHead
from mhc_plugin.models.layers.pooling import GlobalPool

GRID = [dict(type='GridPointingGame'), dict(type='MultiLabelMeanAP')]


@pytest.fixture
def dataset(tiny_cfg):
    return dataset_with_test_pipeline(tiny_cfg, 'test')


@pytest.fixture
def count_passes():
    """Count the images that a backbone sees."""

    def count(model):
        passes = []
        model.backbone.register_forward_hook(lambda m, args, out: passes.append(len(args[0])))
        return passes

    return count


class Oracle(nn.Module):
    """A classifier that reads the classes off the composite: tiles of one brightness each.

    Its backbone gives the mean brightness of each cell, its head one bump per class.
    """

    def __init__(self, leak=0.0):
        super().__init__()
        from mmpretrain.models import MultiLabelClsHead

        class Backbone(nn.Module):
            def forward(self, images):
                return (nn.functional.avg_pool2d(images[:, :1], 4),)

        class Head(MultiLabelClsHead):
            num_classes = 10

            def forward(self, feats):
                cells = feats[-1].flatten(1)
                bumps = (cells[:, :, None].round() == torch.arange(10.0)).float().amax(1)
                return bumps + leak * bumps.sum(1, keepdim=True) * torch.arange(10.0) ** 2

        self.backbone, self.head = Backbone(), Head()
        self.data_preprocessor = nn.Module()
        self.data_preprocessor.forward = lambda data: dict(inputs=data['inputs'].float() / 10)
        self.data_preprocessor.pad_size_divisor = 1
        self.weight = nn.Parameter(torch.zeros(1))

    def extract_feat(self, images, stage):
        return self.backbone(images)


@pytest.fixture
def flat_dataset(monkeypatch):
    """2 x 2 splices of tiles whose brightness is ten times their class."""
    from mhc_plugin.datasets import SplicedDataset
    from mhc_plugin.datasets.splices import spliced
    from mhc_plugin.datasets.splices.sources import SourceImage

    def read_source(config):
        images = [
            SourceImage(
                f'{label}-{number}', label, dict(img=np.full((4, 4), 10 * label + number, np.uint8))
            )
            for label in range(10)
            for number in range(2)
        ]
        return images, [str(label) for label in range(10)]

    monkeypatch.setattr(spliced, 'read_source', read_source)
    return SplicedDataset(
        source=dict(type='Flat'),
        tile_size=4,
        length=30,
        pipeline=[dict(type='ComposeTiles'), dict(type='PackInputs', algorithm_keys=('gt_cells',))],
    )


def test_swaps_replace_one_cell_by_an_absent_class(flat_dataset):
    swapped = SwappedSplices(flat_dataset, seed=3)
    assert len(swapped) == 30
    for index in range(30):
        before, after = flat_dataset[index], swapped[index]
        cells, new_cells = (x['data_samples'].gt_cells.flatten() for x in (before, after))
        changed = (cells != new_cells).nonzero()[:, 0].tolist()
        assert changed == [swapped.cells[index]]
        assert cells[changed] == swapped.removed[index]
        assert new_cells[changed] == swapped.added[index]
        assert swapped.added[index] not in cells.tolist()
        # The tile shows what the annotation says.
        shown = after['inputs'][0, ::4, ::4].flatten().long() // 10
        assert torch.equal(shown, new_cells)
        score = after['data_samples'].gt_score
        assert score.nonzero()[:, 0].tolist() == sorted(new_cells.tolist())
        assert after['data_samples'].gt_label.tolist() == sorted(new_cells.tolist())
    # The data set itself is not touched.
    assert flat_dataset[29]['data_samples'].gt_score.sum() == 4


def test_swaps_follow_the_seed(flat_dataset):
    one, again, other = (SwappedSplices(flat_dataset, seed) for seed in (0, 0, 1))
    assert one.added == again.added
    assert one.cells == again.cells
    assert one.added != other.added


def test_perfect_heads_score_a_hundred(flat_dataset):
    result = swap_test(dict(oracle=Oracle()), flat_dataset)['oracle']
    assert result.score == pytest.approx(100)
    assert result.expected == 100
    assert (result.chance, result.expected_chance, result.num_swaps) == (20, 25, 30)


def test_swap_score_equals_its_definition(tiny_model, dataset):
    result = swap_test(dict(tiny=tiny_model), dataset, seed=5)['tiny']
    swapped = SwappedSplices(dataset, 5)

    def logits_of(data):
        images = torch.stack([data[i]['inputs'] for i in range(len(data))])
        with torch.no_grad():
            return tiny_model(tiny_model.data_preprocessor(dict(inputs=images))['inputs']).double()

    before, after = logits_of(dataset), logits_of(swapped)
    change = (after - before) / before.std(0)
    scores, expected = [], []
    for row, a, b in zip(change, swapped.removed, swapped.added):
        scores.append((row[a].abs() + row[b].abs()) / row.abs().sum())
        expected.append(bool(row[a] < 0 and row[b] > 0))
    assert result.score == pytest.approx(100 * float(sum(scores)) / len(scores), abs=1e-3)
    assert result.expected == pytest.approx(100 * sum(expected) / len(expected))


def test_swaps_need_splices_with_absent_classes(flat_dataset, monkeypatch):
    with pytest.raises(ValueError, match=r'`dataset` to be a `SplicedDataset`.*got `list`'):
        SwappedSplices([])
    info = flat_dataset.get_data_info(0)
    cells = torch.arange(10).view(2, 5)
    full = dict(info, gt_cells=cells, tiles=[info['tiles'][0]] * 10)
    monkeypatch.setattr(flat_dataset, 'get_data_info', lambda index: full)
    with pytest.raises(ValueError, match='do not show all classes'):
        SwappedSplices(flat_dataset)


def test_models_with_one_backbone_share_its_features(tiny_model, tiny_cfg, dataset, count_passes):
    twin = copy.deepcopy(tiny_model)
    nn.init.zeros_(twin.head.fc.weight)
    other = copy.deepcopy(tiny_model)
    nn.init.normal_(other.backbone.conv1.weight)
    passes = [count_passes(model) for model in (tiny_model, twin, other)]
    models = dict(tiny=tiny_model, twin=twin, other=other)
    alone = [output['tiny'].logits for _, output in run_models(dict(tiny=tiny_model), dataset, 5)]
    passes[0].clear()
    together = list(run_models(models, dataset, 5))
    assert [sum(p) for p in passes] == [12, 0, 12]
    for logits, (samples, outputs) in zip(alone, together):
        torch.testing.assert_close(outputs['tiny'].logits, logits)
        torch.testing.assert_close(
            outputs['twin'].logits, twin.head.fc.bias.flatten().expand_as(logits)
        )
        assert len(samples) == len(logits)
        assert not torch.equal(outputs['other'].feats[0], outputs['tiny'].feats[0])


def test_evaluation_equals_that_of_a_test_loop(tiny_cfg, tiny_model, tiny_checkpoint, dataset):
    found = evaluate_maps(dict(a=tiny_model, b=copy.deepcopy(tiny_model)), dataset, GRID)
    tiny_cfg.test_evaluator = GRID
    expected = run_test(tiny_cfg, tiny_checkpoint, maps='inherent')
    assert found['a'].keys() == {*expected, 'completeness'}
    for name, value in expected.items():
        assert found['a'][name] == pytest.approx(value, abs=1e-3, nan_ok=True)
        assert found['b'][name] == pytest.approx(value, abs=1e-3, nan_ok=True)


def test_everything_is_measured_in_one_pass(tiny_model, dataset, count_passes, monkeypatch):
    other = copy.deepcopy(tiny_model)
    models = dict(a=tiny_model, b=other)
    images, swapped = [], SwappedSplices(dataset, 7)
    pipeline = dataset.pipeline
    monkeypatch.setattr(dataset, 'pipeline', lambda info: images.append(1) or pipeline(info))
    passes = [count_passes(model) for model in models.values()]
    runs = []
    score = MultiHeadClsHead.score
    monkeypatch.setattr(
        MultiHeadClsHead,
        'score',
        lambda head, *args, **kwargs: runs.append(id(head)) or score(head, *args, **kwargs),
    )
    found = evaluate_maps(
        models, dataset, GRID, random_heads=['a'], with_swap=True, seed=7, batch_size=5
    )
    # To choose the measures one image is looked at; then the composites, then the swapped ones.
    assert len(images) == 1 + 12 + 12
    assert [sum(p) for p in passes] == [24, 0]
    # Three batches: two models and a random head, then the two models on what was swapped.
    assert sorted(runs.count(head) for head in set(runs)) == [3, 6, 6]
    monkeypatch.undo()
    alone = evaluate_maps(dict(b=other), dataset, GRID)['b']
    assert {k: found['b'][k] for k in alone} == pytest.approx(alone, nan_ok=True)
    random = evaluate_maps(dict(r=with_random_head(tiny_model, 7)), dataset)['r']
    expected = {
        f'random_head/{k.rpartition("/")[2]}': v for k, v in random.items() if k != 'completeness'
    }
    assert {k: found['a'][k] for k in expected} == pytest.approx(expected, nan_ok=True)
    assert not any(name.startswith('random_head') for name in found['b'])
    swap = swap_test(models, dataset, seed=7)['b']
    assert (found['b']['swap'], found['b']['swap_chance']) == (pytest.approx(swap.score), 20)
    assert swapped.removed == SwappedSplices(dataset, 7).removed


def test_scores_that_are_nan_are_not_measured(tiny_model, dataset):
    nn.init.constant_(tiny_model.head.fc.weight, math.nan)
    with pytest.raises(ValueError, match=r'`scores` to hold no NaN, .* sample 0, class 0'):
        evaluate_maps(dict(a=tiny_model), dataset, [dict(type='MapCorrelation')])


def test_completeness_is_that_of_heads_which_say_what_they_add(tiny_model, dataset):
    sharp = copy.deepcopy(tiny_model)
    sharp.head.pool, sharp.head.global_pool = 'lse', GlobalPool('lse', 10.0)
    found = evaluate_maps(dict(mean=tiny_model, lse=sharp), dataset, [])
    assert found['mean']['completeness'] == pytest.approx(100, abs=1e-3)
    assert found['lse']['completeness'] < 99.9
    assert (
        'completeness' not in evaluate_maps(dict(a=tiny_model), dataset, [], method='GradCAM')['a']
    )


def test_post_hoc_methods_are_measured_too(tiny_model, dataset):
    found = evaluate_maps(dict(a=tiny_model), dataset, GRID, method='GradCAM')['a']
    inherent = evaluate_maps(dict(a=tiny_model), dataset, GRID)['a']
    assert found['multi-label/grid_pg'] == pytest.approx(inherent['multi-label/grid_pg'], abs=1e-2)


def test_measures_follow_the_annotation(dataset):
    assert [metric['type'] for metric in metrics_for(dataset)] == [
        'MapCorrelation',
        'GridPointingGame',
    ]
    item = dataset[0]
    item['data_samples'].set_field(torch.zeros(1, 4), 'gt_bboxes')
    del item['data_samples'].gt_cells
    assert [metric['type'] for metric in metrics_for([item])] == [
        'MapCorrelation',
        'EnergyPointingGame',
        'PointingGame',
    ]


@pytest.mark.parametrize(
    ('head', 'std'),
    [
        (dict(type='MultiHeadClsHead', num_classes=10, in_channels=64), 0.01),
        # Uniform between -1/2 and 1/2, as nn.Linear on four inputs.
        (
            dict(type='ConvMultiHeadClsHead', num_classes=10, in_channels=64, conv_channels=4),
            12**-0.5,
        ),
        (dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=64), 0.01),
    ],
)
def test_random_head_leaves_the_model_alone(tiny_cfg, head, std):
    tiny_cfg.model.head = head
    tiny_cfg.model.neck = (
        dict(type='GlobalAveragePooling') if head['type'] == 'MultiLabelLinearClsHead' else None
    )
    model = load_model(tiny_cfg, device='cpu')
    for parameter in model.head.parameters():
        nn.init.constant_(parameter, 7.0)
    before = copy.deepcopy(model.state_dict())
    random, again, other = (with_random_head(model, seed) for seed in (0, 0, 1))
    assert random.backbone is model.backbone
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert random.head.fc.weight.std().item() == pytest.approx(std, rel=0.2)
    assert torch.equal(random.head.fc.weight, again.head.fc.weight)
    assert not torch.equal(random.head.fc.weight, other.head.fc.weight)
    assert not any((parameter == 7).any() for parameter in random.head.parameters())


@pytest.mark.cuda
def test_random_heads_are_the_same_on_a_gpu(tiny_model):
    expected = with_random_head(tiny_model, 3).head.state_dict()
    model = copy.deepcopy(tiny_model).cuda()
    state = torch.cuda.get_rng_state()
    head = with_random_head(model, 3).head
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert all(value.is_cuda for value in head.state_dict().values())
    assert all(torch.equal(head.state_dict()[k].cpu(), value) for k, value in expected.items())


@pytest.mark.cuda
def test_measures_on_a_gpu_are_those_on_a_cpu(tiny_model, dataset):
    options = dict(random_heads=['a'], with_swap=True)
    expected = evaluate_maps(dict(a=copy.deepcopy(tiny_model)), dataset, GRID, **options)['a']
    found = evaluate_maps(dict(a=tiny_model.cuda()), dataset, GRID, **options)['a']
    assert found == pytest.approx(expected, abs=0.5, nan_ok=True)


def test_maps_of_random_heads_score_near_chance(tiny_cfg):
    tiny_cfg.test_dataloader.dataset.length = 100
    dataset = dataset_with_test_pipeline(tiny_cfg, 'test')
    model = load_model(tiny_cfg, device='cpu')
    heads = {seed: with_random_head(model, seed) for seed in range(8)}
    found = evaluate_maps(heads, dataset, GRID[:1])
    # An empty map counts 0; that is no merit of chance.
    scores = [
        figures['multi-label/grid_pg']
        / (1 - figures['multi-label/grid_pg_num_empty'] / figures['multi-label/grid_pg_num_maps'])
        for figures in found.values()
    ]
    assert np.mean(scores) == pytest.approx(25, abs=3)


def test_ranks_are_those_of_pixels_and_ties_are_drawn():
    torch.manual_seed(0)
    values = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    ranks = _ranks(values)
    assert ranks[0, 0] == 1
    assert ranks[1, 1] == pytest.approx(0.8)
    np.testing.assert_allclose(sorted(ranks.flatten().tolist()), np.linspace(0, 1, 6), atol=1e-6)
    assert any(not torch.equal(ranks, _ranks(values)) for _ in range(20))


class TopLeft(nn.Module):
    """A model whose score is the brightness of the upper left quarter."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head
        self.data_preprocessor = model.data_preprocessor

    def forward(self, images):
        size = images.shape[-1] // 2
        return images[:, :, :size, :size].mean((1, 2, 3))[:, None].expand(-1, 10)


@pytest.mark.parametrize(('spot', 'sign'), [((0, 0), 1), ((1, 1), -1)])
def test_road_tells_faithful_maps_from_others(tiny_model, dataset, monkeypatch, spot, sign):
    def maps(model, inputs, method, classes):
        spots = torch.zeros(1, 1, 2, 2)
        spots[0, 0, spot[0], spot[1]] = 1.0
        return spots

    # The package's attribute of this name is the function.
    monkeypatch.setattr(sys.modules['mhc_plugin.analysis.road'], 'class_maps_of', maps)
    # Bright upper left quarters on a dark ground: removing them must darken the score.
    items = [
        dict(item, inputs=torch.zeros_like(item['inputs']))
        for item in (dataset[i] for i in range(3))
    ]
    for item in items:
        item['inputs'][:, :32, :32] = 255
    result = road(TopLeft(tiny_model), items, num_images=3, percentiles=(50,))
    assert math.copysign(1, result.score) == sign
    assert abs(result.score) > 5
    assert (result.chance, result.num_maps, result.num_empty) == (0, 3, 0)


def test_road_follows_the_seed_and_leaves_the_model(tiny_model, dataset):
    tiny_model.train()
    first = road(tiny_model, dataset, num_images=2, percentiles=(50,))
    state = torch.get_rng_state()
    assert road(tiny_model, dataset, num_images=2, percentiles=(50,)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert tiny_model.head.training
    assert first.num_maps == 2


def test_empty_maps_count_zero(tiny_model, dataset):
    nn.init.zeros_(tiny_model.head.fc.weight)
    result = road(tiny_model, dataset, num_images=2)
    assert (result.score, result.num_empty) == (0, 2)


def test_road_needs_positive_classes(dataset):
    item = dataset[0]
    item['data_samples'].gt_score[:] = 0
    with pytest.raises(ValueError, match='images with a positive class'):
        _choose([item], 1, 0)
    del item['data_samples'].gt_score
    item['data_samples'].set_gt_label([3])
    assert _choose([item], 4, 0) == [(0, 3)]
