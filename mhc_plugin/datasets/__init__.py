from .annotation_files import AnnotationError
from .choose import choose_classes, choose_images
from .class_lists import class_list_difference, num_classes_difference
from .openimages.subset import OpenImagesSubset
from .own_images.csv_labels import CSVMultiLabelDataset
from .own_images.json_labels import JSONMultiLabelDataset
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
    'class_list_difference',
    'num_classes_difference',
]
