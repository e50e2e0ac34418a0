"""Images as a model saw them, for eyes."""

import numpy as np
import torch
from torch import nn


def packed_to_rgb(inputs: torch.Tensor, data_preprocessor: nn.Module) -> np.ndarray:
    """Turn an image as a pipeline packs it into RGB.

    Args:
        inputs (Tensor): Packed image, uint8 (3, H, W) or (1, H, W).
        data_preprocessor (nn.Module): The model's preprocessor. One that turns BGR into RGB is
            fed BGR; what another one gets is taken for RGB.

    Returns:
        np.ndarray: RGB, uint8 (H, W, 3).
    """
    image = inputs.detach().cpu()
    if image.size(0) == 3 and getattr(data_preprocessor, 'to_rgb', False):
        image = image.flip(0)
    return image.expand(3, -1, -1).permute(1, 2, 0).numpy().astype(np.uint8)
