from mhc_plugin.utils.seeding import sample_seed, seeded

from .choose import choose_classes, choose_images
from .errors import AnnotationError
from .openimages.subset import OpenImagesSubset
from .own_images import CSVMultiLabelDataset, JSONMultiLabelDataset
from .splices.digits import SklearnDigits
from .splices.imagenette import Imagenette
from .splices.spliced import SplicedDataset
from .transforms import *
from .voc.subset import VOCSubset

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
