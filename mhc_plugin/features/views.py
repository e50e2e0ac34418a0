"""Views: draws of the augmentation of an image, each a function of (seed, image, view) alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mhc_plugin.utils.seeding import sample_seed, seeded

from .samples import encode_sample, packs_labels_of_info

NUM_PROBES = 16


class ViewDataset(Dataset):
    """Images under every view, in the order of a layout's rows.

    Args:
        dataset (Sequence): A dataset of MMEngine: ``dataset[i]`` gives ``inputs`` and
            ``data_samples``, ``dataset.get_data_info(i)`` what is known of the image.
        seed (int): The seed.
    """

    def __init__(self, dataset: Sequence, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitem__(self, row: int) -> tuple[int, Tensor, dict]:
        """Index of the image, the image, and its encoded data sample."""
        view, index = divmod(row, len(self.dataset))
        with seeded(self.seed, index, view):
            packed = self.dataset[index]
        info = self.dataset.get_data_info(index)
        sample = packed['data_samples']
        if (
            'sample_idx' in info
            and sample.get('sample_idx', info['sample_idx']) != (info['sample_idx'])
        ):
            raise ValueError(
                f'Image {index} gives no sample, since its pipeline returns None, and '
                'another takes its place. The feature cache needs every image.'
            )
        return index, packed['inputs'], encode_sample(sample, info)


def stack_views(items: Sequence[tuple[int, Tensor, dict]]) -> tuple[Tensor, list[dict]]:
    """Collate items of a :class:`ViewDataset`.

    Returns:
        tuple[Tensor, list[dict]]: Images ``(N, 3, H, W)`` and encoded data samples.

    Raises:
        ValueError: If an image is none, or of another size than the first.
    """
    indices, images, samples = zip(*items)
    for index, image in zip(indices, images):
        if not isinstance(image, Tensor):
            raise ValueError(
                f'Expected the pipeline to give one image as a tensor, but got '
                f'{type(image).__name__} for image {index}.'
            )
        if image.shape != images[0].shape:
            raise ValueError(
                f'Expected images of one size, but image {index} is {tuple(image.shape)} and image '
                f'{indices[0]} is {tuple(images[0].shape)}. Resize or crop them in the pipeline.'
            )
    return torch.stack(images), list(samples)


@dataclass(frozen=True)
class PipelineTraits:
    """What a pipeline does, seen by running it.

    Args:
        is_random (bool): Whether it draws random numbers.
        keeps_labels (bool): Whether labels are packed as the dataset gives them.
    """

    is_random: bool
    keeps_labels: bool

    @classmethod
    def of(cls, dataset: Sequence) -> 'PipelineTraits':
        """Run a dataset's pipeline on some images, each under two seeds.

        It is random if any transform says so (mmcv's ``cache_randomness``), any generator moves,
        though the result be the same by chance, or two results differ.
        """
        is_random, keeps_labels = any(map(_is_marked, _transforms_of(dataset))), True
        for index in np.unique(np.linspace(0, len(dataset) - 1, NUM_PROBES).astype(int)).tolist():
            images = []
            for seed in range(2):
                with seeded(seed):
                    before = _random_states()
                    packed = dataset[index]
                    is_random |= before != _random_states()
                images.append(packed['inputs'])
            is_random |= not _same_images(*images)
            encoded = encode_sample(packed['data_samples'], dataset.get_data_info(index))
            keeps_labels &= packs_labels_of_info(encoded)
        return cls(is_random, keeps_labels)


def draw_views(seed: int, epoch: int, num_samples: int, views: int) -> np.ndarray:
    """The view of every image in an epoch.

    Returns:
        np.ndarray: int64 ``(num_samples,)``, in [0, views).
    """
    stream = np.random.RandomState(sample_seed(seed, epoch))
    return stream.randint(views, size=num_samples, dtype=np.int64)


def _random_states() -> tuple:
    name, keys, *rest = np.random.get_state()
    return (
        random.getstate(),
        (name, keys.tobytes(), *rest),
        torch.default_generator.get_state().numpy().tobytes(),
    )


def _same_images(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return False


def _is_marked(transform: Any) -> bool:
    return bool(getattr(transform, '_methods_with_randomness', None))


def _transforms_of(value: Any, depth: int = 0) -> Iterator[Any]:
    """A dataset's transforms: those in its pipeline, and in transforms and datasets that wrap."""
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _transforms_of(item, depth + 1)
        return
    if depth:
        yield value
    for name in ('pipeline', 'dataset', 'datasets', 'transforms', '_dataset'):
        if hasattr(value, name) and depth < 10:
            yield from _transforms_of(getattr(value, name), depth + 1)
