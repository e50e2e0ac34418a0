"""The data preprocessor of a classifier that takes images or features."""
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.registry import MODELS


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
        if isinstance(data['inputs'], tuple):
            return self.cast_data(data)
        return super().forward(data, training)
