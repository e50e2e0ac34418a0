"""``--backbone-weights``: a local file, or random weights, in the place of published ones."""
import os
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner.checkpoint import _load_checkpoint
from torch import Tensor, nn

_TIMM = 'timm_model.'


def replace_pretrained(cfg: Config, weights: str | os.PathLike) -> None:
    """Take the published weights of the backbone out of a config.

    Args:
        cfg (Config): Changed in place; ``cfg.backbone_weights`` records what was asked for.
        weights (str | PathLike): A checkpoint, or ``'none'`` for random weights.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the config's model has no backbone.
    """
    weights = os.fspath(weights)
    if weights != 'none' and not Path(weights).expanduser().is_file():
        raise FileNotFoundError(f'There is no file {weights} to read the backbone\'s weights from. '
                                'Give a checkpoint, or `none` for random weights.')
    backbone = cfg.model.get('backbone')
    if backbone is None:
        raise ValueError(f'Expected a model with a backbone, but {cfg.model.type} has none whose '
                         'weights could be replaced.')
    backbone.pop('init_cfg', None)
    cfg.model.pop('pretrained', None)
    if 'pretrained' in backbone:
        # timm's models download when they are built.
        backbone.pretrained = False
    cfg.backbone_weights = weights


def load_backbone(model: nn.Module, weights: str | os.PathLike) -> None:
    """Load the backbone's weights, checking every name and shape.

    Args:
        model (nn.Module): A classifier, wrapped or not; its ``init_weights`` then leaves the
            backbone alone.
        weights (str | PathLike): A checkpoint of a whole model, whose names begin with
            ``backbone.``, or of a backbone alone, timm's included; what else it holds is left out.

    Raises:
        ValueError: If a parameter or batch statistic is missing or has another shape.
    """
    backbone = (model.module if is_model_wrapper(model) else model).backbone
    own = backbone.state_dict()
    state = _backbone_state(weights, own)
    needed = {name for name, _ in backbone.named_parameters()}
    needed |= {name for name in own if name.endswith(('running_mean', 'running_var'))}
    _check('lacks', sorted(needed - set(state)), weights, backbone)
    _check('has another shape of', [
        f'{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}'
        for name in own if name in state and state[name].shape != own[name].shape
    ], weights, backbone)
    backbone.load_state_dict({name: state[name] for name in own if name in state}, strict=False)
    backbone.is_init = True
    print_log(f'Loaded the backbone from {weights}.', logger='current')


def _backbone_state(weights: str | os.PathLike, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint under the backbone's own names."""
    checkpoint = _load_checkpoint(os.fspath(weights), map_location='cpu')
    state = checkpoint.get('state_dict', checkpoint)
    state = {name.removeprefix('module.'): value for name, value in state.items()}
    if any(name.startswith('backbone.') for name in state):
        state = {
            name.removeprefix('backbone.'): value
            for name, value in state.items() if name.startswith('backbone.')
        }
    if (all(name.startswith(_TIMM) for name in own)
            and not any(name.startswith(_TIMM) for name in state)):
        state = {_TIMM + name: value for name, value in state.items()}
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _check(verb: str, problems: list[str], weights: str | os.PathLike, backbone: nn.Module) -> None:
    if not problems:
        return
    more = f' and {len(problems) - 3} more' if len(problems) > 3 else ''
    raise ValueError(f'Expected {weights} to hold the weights of {type(backbone).__name__}, but it '
                     f'{verb} {", ".join(problems[:3])}{more}.')
