from .digits import SklearnDigits
from .imagenette import Imagenette
from .own_images import CSVMultiLabelDataset, JSONMultiLabelDataset
from .seeding import sample_seed, seeded
from .spliced import SplicedDataset
from .transforms import *

__all__ = [
    'CSVMultiLabelDataset',
    'Imagenette',
    'JSONMultiLabelDataset',
    'SklearnDigits',
    'SplicedDataset',
    'sample_seed',
    'seeded',
]
