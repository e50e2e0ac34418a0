from .attach import class_maps_of, predictions_with_maps
from .inherent import closed_form, inherent_maps, logits_and_maps
from .posthoc import find_method, posthoc_maps, posthoc_methods
from .state import left_as_found, unwrap_classifier

__all__ = [
    'class_maps_of',
    'closed_form',
    'find_method',
    'inherent_maps',
    'left_as_found',
    'logits_and_maps',
    'posthoc_maps',
    'posthoc_methods',
    'predictions_with_maps',
    'unwrap_classifier',
]
