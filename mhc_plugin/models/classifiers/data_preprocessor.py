"""The data preprocessor of a classifier that takes images or features."""

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class FeatureDataPreprocessor(ClsDataPreprocessor):
    """MMPretrain's ``ClsDataPreprocessor`` for images; a tuple of features is only moved.

    Arguments are those of ``ClsDataPreprocessor``, which would silently stack features as if
    they were images.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data (dict): ``inputs``, a tensor or list of images, or a tuple of features; and
                ``data_samples``.
            training (bool): Whether to apply batch augmentations to images.

        Returns:
            dict: ``inputs`` and ``data_samples`` on the model's device.
        """
        if not isinstance(data['inputs'], tuple):
            return super().forward(data, training)
        samples = data.get('data_samples')
        if samples is not None and not self._is_here(samples[0]):
            samples = self.cast_data(samples)
        return dict(inputs=self.cast_data(data['inputs']), data_samples=samples)

    def _is_here(self, sample: BaseDataElement) -> bool:
        """Whether a data sample needs no copy, which takes longer than a step of a small head."""
        here = torch.device(self.device)
        # MMEngine moves a model to 'cuda', and its tensors are then on 'cuda:0'.
        return all(
            value.device.type == here.type and here.index in (None, value.device.index)
            for value in sample.values()
            if isinstance(value, Tensor)
        )
