"""The data preprocessor of a classifier that takes images or features."""

from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS

from mhc_plugin.utils.batch import DataSamples, Features


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
        if isinstance(samples, DataSamples):
            samples = samples.to(self.device, non_blocking=True)
        else:
            samples = self.cast_data(samples)
        # From pinned memory the copy runs beside the step before.
        return dict(inputs=inputs.to(self.device, non_blocking=True), data_samples=samples)
