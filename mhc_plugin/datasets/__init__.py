from .choose import choose_classes, choose_images
from .digits import SklearnDigits
from .errors import AnnotationError
from .imagenette import Imagenette
from .openimages_subset import OpenImagesSubset
from .own_images import CSVMultiLabelDataset, JSONMultiLabelDataset
from .seeding import sample_seed, seeded
from .spliced import SplicedDataset
from .transforms import *
from .voc_subset import VOCSubset

__all__ = [
    'AnnotationError',
    'CSVMultiLabelDataset',
    'Imagenette',
    'JSONMultiLabelDataset',
    'OpenImagesSubset',
    'SklearnDigits',
    'SplicedDataset',
    'VOCSubset',
    'choose_classes',
    'choose_images',
    'sample_seed',
    'seeded',
]
