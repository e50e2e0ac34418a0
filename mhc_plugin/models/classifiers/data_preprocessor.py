"""The data preprocessor of a classifier that takes images or features."""

import torch
from mmengine.structures import BaseDataElement
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS
from torch import Tensor

from mhc_plugin.utils.batch import Features


@MODELS.register_module()
class FeatureDataPreprocessor(ClsDataPreprocessor):
    """MMPretrain's ``ClsDataPreprocessor`` for images; :class:`Features` are only moved.

    Arguments are those of ``ClsDataPreprocessor``, which would silently stack features as if
    they were images.
    """

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data (dict): ``inputs``, a tensor or list of images, or :class:`Features`; and
                ``data_samples``.
            training (bool): Whether to apply batch augmentations to images.

        Returns:
            dict: ``inputs`` and ``data_samples`` on the model's device.
        """
        inputs, samples = data['inputs'], data.get('data_samples')
        if not isinstance(inputs, Features):
            return super().forward(data, training)
        if samples is not None and not self._is_here(samples[0]):
            samples = self.cast_data(samples)
        # From pinned memory the copy runs beside the step before.
        return dict(inputs=inputs.to(self.device, non_blocking=True), data_samples=samples)

    def _is_here(self, sample: BaseDataElement) -> bool:
        """Whether a data sample needs no copy, which takes longer than a step of a small head."""
        here = torch.device(self.device)
        # MMEngine moves a model to 'cuda', and its tensors are then on 'cuda:0'.
        return all(
            value.device.type == here.type and here.index in (None, value.device.index)
            for value in sample.values()
            if isinstance(value, Tensor)
        )
