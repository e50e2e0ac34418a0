from .annotation_files import AnnotationError
from .choose import choose_classes, choose_images
from .openimages.subset import OpenImagesSubset
from .own_images import CSVMultiLabelDataset, JSONMultiLabelDataset
from .splices.single_label import Imagenette, SklearnDigits
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
]
