"""Ten easily told ImageNet classes."""

import os

from mmpretrain.datasets import BaseDataset
from mmpretrain.datasets.custom import get_samples
from mmpretrain.registry import DATASETS

from mhc_plugin.datasets.data_root import missing_data

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
        if split not in ('train', 'val'):
            raise ValueError(
                f"Expected argument `split` to be 'train' or 'val', but got {split!r}."
            )
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
