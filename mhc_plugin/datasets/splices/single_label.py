"""Single-label sets to splice: scikit-learn's digits, which need no download, and Imagenette."""

import os
from collections.abc import Sequence

import numpy as np
from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.custom import get_samples
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.annotation_files import missing_data
from mhc_plugin.functional.checks import check_choice

# One of four digits is for testing; 0 is the seed of the draw.
_TEST_SHARE = 0.25
_SPLIT_SEED = 0


@DATASETS.register_module()
class SklearnDigits(BaseDataset):
    """The 1,797 handwritten digits of ``sklearn.datasets.load_digits``, 8 x 8 pixels, grey.

    The set comes in one piece and does not say who wrote what, so the split is ours: a quarter
    of every class, drawn once with a fixed seed, is for testing. Equal images stay on one side.

    Samples hold ``img``, uint8 ``(10, 10)``, 0 black to 255 white, and ``gt_label``. The margin
    of one black pixel is ours: the digits fill their 8 x 8 pixels from top to bottom, and tiles
    without a margin run into one another.

    Args:
        split (str): 'train' or 'test'.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        ValueError: If the split is another.
        ImportError: If scikit-learn is missing.
    """

    METAINFO = {'classes': tuple(str(digit) for digit in range(10))}

    def __init__(self, split: str, **kwargs) -> None:
        check_choice('split', split, ('train', 'test'))
        self.split = split
        super().__init__(ann_file='', **kwargs)

    def load_data_list(self) -> list[dict]:
        """Images of the split, in scikit-learn's order."""
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError(
                "SklearnDigits needs scikit-learn: pip install 'mhc_plugin[demo]'."
            ) from error
        digits = load_digits()
        # Intensities are whole numbers from 0 to 16.
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        images = np.pad(images, ((0, 0), (1, 1), (1, 1)))
        in_test = _draw_test(images, digits.target)
        wanted = np.flatnonzero(in_test == (self.split == 'test'))
        return [dict(img=images[i], gt_label=int(digits.target[i])) for i in wanted]

    def extra_repr(self) -> list[str]:
        """Lines that MMPretrain adds to the printed form."""
        return [f'Split: \t{self.split}']


def _draw_test(images: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Mark the test images.

    Args:
        images (np.ndarray): uint8 ``(num_images, h, w)``.
        labels (Sequence[int]): Class of each.

    Returns:
        np.ndarray: bool ``(num_images,)``, the same for all images of equal content.
    """
    # `first` is where a content occurs first, `copy_of` leads each image to its content.
    _, first, copy_of = np.unique(
        images.reshape(len(images), -1), axis=0, return_index=True, return_inverse=True
    )
    copy_of = copy_of.reshape(-1)
    stream = np.random.RandomState(_SPLIT_SEED)
    in_test = np.zeros(len(first), dtype=bool)
    for label in np.unique(labels):
        contents = np.flatnonzero(np.asarray(labels)[first] == label)
        # In the order of the images, which does not hang on how `unique` sorts.
        contents = contents[np.argsort(first[contents])]
        drawn = stream.permutation(len(contents))[: round(_TEST_SHARE * len(contents))]
        in_test[contents[drawn]] = True
    return in_test[copy_of]


# Smallest first: tiles of splices are small, and small files are read faster.
FOLDERS = ('imagenette160', 'imagenette2-160', 'imagenette2-320', 'imagenette2')

CLASSES = {
    'n01440764': 'tench',
    'n02102040': 'English springer',
    'n02979186': 'cassette player',
    'n03000684': 'chain saw',
    'n03028079': 'church',
    'n03394916': 'French horn',
    'n03417042': 'garbage truck',
    'n03425413': 'gas pump',
    'n03445777': 'golf ball',
    'n03888257': 'parachute',
}

_EXTENSIONS = ('.jpg', '.jpeg', '.png')


@DATASETS.register_module()
class Imagenette(BaseDataset):
    """Imagenette: images of ten ImageNet classes, their WordNet ids shown as words.

    Found as ``<data_root>/<folder>/<split>/<WordNet id>/*.JPEG``, where the folder is the first
    that exists of ``imagenette160``, ``imagenette2-160``, ``imagenette2-320`` and
    ``imagenette2``.

    Args:
        data_root (str): Folder that holds one of these.
        split (str): 'train' or 'val'. Defaults to 'train'.
        **kwargs: Other arguments of MMPretrain's ``BaseDataset``.

    Raises:
        FileNotFoundError: If none of the folders or a class in it is missing.
        ValueError: If the split is another.
    """

    METAINFO = {'classes': tuple(CLASSES.values())}

    def __init__(self, data_root: str, split: str = 'train', **kwargs) -> None:
        check_choice('split', split, ('train', 'val'))
        super().__init__(
            ann_file='',
            data_root=_find_folder(data_root),
            data_prefix=split,
            test_mode=kwargs.pop('test_mode', split == 'val'),
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Images by class and name.

        Raises:
            FileNotFoundError: If a class has no images.
        """
        folder_to_idx = {wnid: label for label, wnid in enumerate(CLASSES)}
        for wnid in CLASSES:
            folder = os.path.join(self.img_prefix, wnid)
            if not os.path.isdir(folder):
                raise FileNotFoundError(
                    f"Expected images of '{CLASSES[wnid]}' in '{folder}', but there is no such "
                    'folder: the copy of Imagenette is incomplete.'
                )
        samples, _ = get_samples(
            self.img_prefix, folder_to_idx, lambda name: name.lower().endswith(_EXTENSIONS)
        )
        return [
            dict(img_path=os.path.join(self.img_prefix, path), gt_label=label)
            for path, label in samples
        ]


def _find_folder(data_root: str) -> str:
    candidates = [os.path.join(data_root, folder) for folder in FOLDERS]
    for folder in candidates:
        if os.path.isdir(folder):
            return folder
    raise FileNotFoundError(missing_data("' or '".join(candidates), 'data_root'))
