"""Whether weights are a model's, a backbone's from a file, and how a checkpoint names one."""

import json
import os
from dataclasses import asdict, dataclass

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

from mhc_plugin.utils.tensor_hash import hash_weights

# In the state dict of a checkpoint that holds no backbone.
RECORD = 'backbone_record'
BACKBONE = 'backbone.'
_TIMM = 'timm_model.'


def check_weights(model: nn.Module, checkpoint: dict, source: str | os.PathLike) -> None:
    """Raise where MMEngine only warns: a head without its weights predicts noise.

    Args:
        model (nn.Module): What the weights are to be loaded into, wrapped or not.
        checkpoint (dict): What was read.
        source (str | PathLike): Where from, for the error.

    Raises:
        ValueError: If a parameter or buffer of the model is missing or has another shape. A
            checkpoint that names its backbone need not hold it: loading makes sure that the model
            has the one that is named.
    """
    own = (model.module if hasattr(model, 'module') else model).state_dict()
    state = checkpoint.get('state_dict', checkpoint)
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    if RECORD in state:
        own = {name: value for name, value in own.items() if not name.startswith(BACKBONE)}
    wrong = [
        f'{name} {tuple(value.shape)}'
        for name, value in own.items()
        if name not in state or state[name].shape != value.shape
    ]
    if wrong:
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        hint = (
            'Its weights lie under `model`, and are read from `state_dict`.'
            if isinstance(checkpoint.get('model'), dict)
            else 'Is it a checkpoint of another config?'
        )
        raise ValueError(
            f'Expected {source} to hold the weights of this model, but it lacks '
            f'{", ".join(wrong[:3])}{more}. {hint}'
        )


def load_backbone(model: nn.Module, weights: str | os.PathLike) -> None:
    """Load the backbone's weights, checking every name and shape.

    Args:
        model (nn.Module): A classifier, wrapped or not; its ``init_weights`` then leaves the
            backbone alone.
        weights (str | PathLike): A checkpoint of a whole model, whose names begin with
            ``backbone.``, or of a backbone alone, timm's included; what else it holds is left out.
            Its tensors lie under ``state_dict``, under ``model`` or at the top.

    Raises:
        ValueError: If a parameter or batch statistic is missing or has another shape.
    """
    backbone = (model.module if is_model_wrapper(model) else model).backbone
    own = backbone.state_dict()
    state = _backbone_state(weights, own)
    needed = {name for name, _ in backbone.named_parameters()}
    needed |= {name for name in own if name.endswith(('running_mean', 'running_var'))}
    _check('lacks', sorted(needed - set(state)), weights, backbone)
    _check(
        'has another shape of',
        [
            f'{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}'
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
        weights,
        backbone,
    )
    backbone.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    backbone.is_init = True
    print_log(f'Loaded the backbone from {weights}.', logger='current')


def _backbone_state(weights: str | os.PathLike, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the backbone's own names."""
    checkpoint = _load_checkpoint(os.fspath(weights), map_location='cpu', logger='silent')
    state = checkpoint.get('state_dict', checkpoint.get('model', checkpoint))
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    if any(name.startswith(BACKBONE) for name in state):
        state = {
            name.removeprefix(BACKBONE): value
            for name, value in state.items()
            if name.startswith(BACKBONE)
        }
    if all(name.startswith(_TIMM) for name in own) and not any(
        name.startswith(_TIMM) for name in state
    ):
        state = {_TIMM + name: value for name, value in state.items()}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _check(verb: str, problems: list[str], weights: str | os.PathLike, backbone: nn.Module) -> None:
    if not problems:
        return
    more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
    raise ValueError(
        f'Expected {weights} to hold the weights of {type(backbone).__name__}, but it '
        f'{verb} {", ".join(problems[:3])}{more}.'
    )


@dataclass(frozen=True)
class BackboneRecord:
    """What a checkpoint says of the backbone that it does not hold.

    Args:
        sha256 (str): :func:`hash_weights` of the backbone.
        source (str): Where its weights came from: a path, an address or the name of an
            initialiser.
    """

    sha256: str
    source: str

    def replace_backbone(self, state: dict[str, Tensor], prefix: str = '') -> None:
        """Put this record in the place of the backbone.

        Args:
            state (dict[str, Tensor]): A state dict, changed in place.
            prefix (str): What stands before the names of the model. Defaults to ''.
        """
        for name in [name for name in state if name.startswith(prefix + BACKBONE)]:
            del state[name]
        # Checkpoints hold tensors, and whatever reads one hands on all of a state dict.
        text = json.dumps(asdict(self)).encode()
        state[prefix + RECORD] = torch.frombuffer(bytearray(text), dtype=torch.uint8)

    @classmethod
    def pop_from(cls, state: dict[str, Tensor], prefix: str = '') -> 'BackboneRecord | None':
        """Take the record out of a state dict; None if it has none."""
        text = state.pop(prefix + RECORD, None)
        return None if text is None else cls(**json.loads(bytes(text.tolist())))

    def restore(self, model: nn.Module) -> None:
        """Give a model this backbone: as it is, by its ``init_cfg``, or by its source.

        Args:
            model (nn.Module): A classifier.

        Raises:
            ValueError: If its backbone is another one.
        """
        if hash_weights(model.backbone) == self.sha256:
            return
        if not getattr(model.backbone, 'is_init', True) and weights_source(model.backbone):
            model.backbone.init_weights()
            if hash_weights(model.backbone) == self.sha256:
                return
        if '://' in self.source or os.path.isfile(self.source):
            load_backbone(model, self.source)
        found = hash_weights(model.backbone)
        if found != self.sha256:
            raise ValueError(
                'This checkpoint holds no backbone. It was trained on one with weights from '
                f'{self.source} (sha256 {self.sha256[:12]}), but the backbone of this model is '
                f'another (sha256 {found[:12]}). Use the config and the backbone weights that it '
                'was trained with.'
            )


def holds_backbone(checkpoint: str | os.PathLike) -> bool:
    """Whether a checkpoint holds the backbone's weights, and not a record in their place."""
    content = _load_checkpoint(os.fspath(checkpoint), map_location='cpu', logger='silent')
    return RECORD not in content.get('state_dict', content)


# MMEngine's initialisers that draw or fill; others read weights from somewhere.
_NOT_FROM_A_FILE = {
    'Constant',
    'Xavier',
    'Normal',
    'TruncNormal',
    'Uniform',
    'Kaiming',
    'Caffe2Xavier',
}


def weights_source(module: nn.Module) -> str | None:
    """Where a module's ``init_cfg`` takes weights from; None if it only draws them."""
    cfgs = getattr(module, 'init_cfg', None) or []
    for cfg in [cfgs] if isinstance(cfgs, dict) else cfgs:
        if cfg['type'] not in _NOT_FROM_A_FILE:
            return str(cfg.get('checkpoint') or cfg.get('path') or cfg['type'])
    return None
