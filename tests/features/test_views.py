"""Views and what is seen of a pipeline by running it."""

import random

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform, RandomFlip
from mmcv.transforms.utils import cache_randomness
from mmpretrain.structures import DataSample

from mhc_plugin.features.views import PipelineTraits, ViewDataset, draw_views, stack_views
from mhc_plugin.utils.seeding import seeded


class Dataset:
    """Images that a function makes."""

    def __init__(
        self,
        transform=lambda index: torch.full((3, 2, 2), float(index)),
        length=40,
        pipeline=(),
        label=None,
    ):
        self.transform = transform
        self.length = length
        self.pipeline = list(pipeline)
        self.label = label

    def __len__(self):
        return self.length

    def get_data_info(self, index):
        return dict(sample_idx=index, gt_label=[1])

    def __getitem__(self, index):
        sample = DataSample().set_gt_label([1] if self.label is None else self.label(index))
        sample.set_field(index, 'sample_idx', field_type='metainfo')
        return dict(inputs=self.transform(index), data_samples=sample)


def rarely(draw):
    """Draw a number without a consequence."""

    def transform(index):
        draw()
        return torch.full((3, 2, 2), float(index))

    return transform


class Marked(BaseTransform):
    @cache_randomness
    def draw(self):
        return 0

    def transform(self, results):
        return results


GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize(
    ('dataset', 'is_random'),
    [
        (Dataset(), False),
        (Dataset(rarely(random.random)), True),
        (Dataset(rarely(np.random.rand)), True),
        (Dataset(rarely(lambda: torch.rand(1))), True),
        (Dataset(lambda index: torch.from_numpy(GENERATOR.random((3, 2, 2)))), True),
        (Dataset(lambda index: torch.rand(3, 2, 2) if index == 39 else torch.zeros(3, 2, 2)), True),
        (Dataset(pipeline=[Marked()]), True),
        (Dataset(pipeline=[RandomFlip(prob=0.5)]), True),
    ],
    ids=['nothing', 'random', 'numpy', 'torch', 'own generator', 'last image', 'marked', 'flip'],
)
def test_random_pipelines_are_recognised(dataset, is_random):
    assert PipelineTraits.of(dataset).is_random is is_random


def test_random_transforms_are_found_in_wrappers():

    class Wrapper(Dataset):
        def __init__(self, dataset):
            super().__init__()
            self.datasets = [dataset]

    choice = type('Choice', (), dict())()
    choice.transforms = [[Marked()]]
    assert PipelineTraits.of(Wrapper(Dataset(pipeline=[choice]))).is_random


def test_looking_leaves_the_generators_alone():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    PipelineTraits.of(Dataset(lambda index: torch.rand(3, 2, 2) + np.random.rand()))
    after = torch.rand(1), np.random.rand(), random.random()
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    assert after == (torch.rand(1), np.random.rand(), random.random())


def test_labels_of_the_pipeline_are_recognised():
    assert PipelineTraits.of(Dataset()).keeps_labels
    assert not PipelineTraits.of(Dataset(label=lambda index: [index])).keeps_labels


def test_a_view_depends_on_seed_image_and_view_alone():
    dataset = Dataset(lambda index: torch.rand(3, 2, 2), length=5)
    views = ViewDataset(dataset, seed=7)
    for row in (13, 0, 4, 13):
        index, image, _ = views[row]
        assert index == row % 5
        with seeded(7, row % 5, row // 5):
            assert torch.equal(image, torch.rand(3, 2, 2))
    assert not torch.equal(views[3][1], ViewDataset(dataset, seed=8)[3][1])


def test_an_image_in_the_place_of_another_is_refused():
    dataset = Dataset()
    original = dataset.get_data_info
    dataset.get_data_info = lambda index: dict(original(index), sample_idx=index + 1)
    with pytest.raises(ValueError, match='Image 4 gives no sample, since its pipeline returns Non'):
        ViewDataset(dataset, 0)[4]


def test_stacking_wants_one_image_of_one_size():
    images, samples = stack_views(
        [(0, torch.zeros(3, 2, 2), dict(a=1)), (1, torch.ones(3, 2, 2), dict(a=2))]
    )
    assert images.shape == (2, 3, 2, 2)
    assert samples == [dict(a=1), dict(a=2)]
    with pytest.raises(ValueError, match=r'but image 1 is \(3, 2, 3\) and image 0 is \(3, 2, 2\)'):
        stack_views([(0, torch.zeros(3, 2, 2), {}), (1, torch.ones(3, 2, 3), {})])
    with pytest.raises(ValueError, match='one image as a tensor, but got list for image 0'):
        stack_views([(0, [torch.zeros(3, 2, 2)], {})])


def test_views_of_an_epoch_are_even_and_a_function_of_seed_and_epoch():
    draws = np.stack([draw_views(3, epoch, 100, 4) for epoch in range(100)])
    assert draws.dtype == np.int64
    counts = np.bincount(draws.ravel(), minlength=4)
    # Four bins of 10,000 draws: chi-squared with 3 degrees of freedom, far in its tail.
    assert ((counts - 2500) ** 2 / 2500).sum() < 25
    assert len(np.unique(draws, axis=0)) == 100
    assert np.array_equal(draw_views(3, 7, 100, 4), draws[7])
    assert not np.array_equal(draw_views(4, 7, 100, 4), draws[7])
    assert (draw_views(3, 0, 100, 1) == 0).all()
