from .attach import class_maps_of, predictions_with_maps
from .inherent import has_closed_form, inherent_maps
from .posthoc import find_method, posthoc_maps, posthoc_methods
from .state import left_as_found, unwrap_classifier

__all__ = [
    'class_maps_of', 'find_method', 'has_closed_form', 'inherent_maps', 'left_as_found',
    'posthoc_maps', 'posthoc_methods', 'predictions_with_maps', 'unwrap_classifier'
]
