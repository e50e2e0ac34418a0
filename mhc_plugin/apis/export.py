"""Export of a model to ONNX, checked against PyTorch."""

import copy
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from mmpretrain.models import MultiLabelClsHead
from torch import Tensor, nn

from mhc_plugin import compat
from mhc_plugin.class_maps import closed_form, left_as_found, unwrap_classifier
from mhc_plugin.functional.checks import check_no_nan
from mhc_plugin.utils.missing import needs_extra

from .model import classes_of

if TYPE_CHECKING:
    import onnx

OPSET = 18
TOLERANCE = 1e-4


class ExportableClassifier(nn.Module):
    """A classifier from pixels to scores and, on request, class maps.

    Args:
        model (nn.Module): A classifier.
        with_maps (bool): Whether to give class maps, too.
    """

    def __init__(self, model: nn.Module, with_maps: bool) -> None:
        super().__init__()
        self.model = model
        self.with_maps = with_maps
        preprocessor = model.data_preprocessor
        normalises = getattr(preprocessor, '_enable_normalize', False)
        self.register_buffer('mean', preprocessor.mean if normalises else torch.zeros(1, 1, 1))
        self.register_buffer('std', preprocessor.std if normalises else torch.ones(1, 1, 1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Give scores (N, num_classes), and maps (N, num_classes, h, w) if they are wanted.

        Args:
            images (Tensor): float (N, 3, H, W) in 0..255.
        """
        feats = self.model.extract_feat((images - self.mean) / self.std, stage='backbone')
        if self.with_maps:
            logits, maps = closed_form(self.model, feats)
            maps = maps.clamp(min=0)
        else:
            neck = getattr(self.model, 'neck', None)
            logits, maps = self.model.head(feats if neck is None else neck(feats)), None
        is_multi_label = isinstance(self.model.head, MultiLabelClsHead)
        scores = logits.sigmoid() if is_multi_label else logits.softmax(1)
        return (scores, maps) if self.with_maps else scores


def export_onnx(
    model: nn.Module, path: str | os.PathLike, image_size: tuple[int, int], with_maps: bool = False
) -> float:
    """Write a model as ONNX and check it against PyTorch with onnxruntime.

    The graph takes ``images``, float32 (N, 3, H, W) in 0..255 with any N, and normalises them
    itself; it gives ``scores`` (N, num_classes) and, on request, ``maps`` (N, num_classes, h, w),
    raw. The file's metadata has ``classes`` (JSON), ``channels`` (the order, RGB or BGR) and, where
    they were chosen, ``thresholds`` (JSON).

    Args:
        model (nn.Module): A classifier on any device. It is left as it was found; a copy on the
            CPU is exported.
        path (str | PathLike): File to write.
        image_size (tuple[int, int]): Height and width of the images.
        with_maps (bool): Give inherent class maps in the same graph. Defaults to False.

    Returns:
        float: The largest difference between onnxruntime and PyTorch: of scores absolute, of maps
        relative to the highest value of any map, or absolute below 1.

    Raises:
        ImportError: If the packages of the extra ``export`` are missing.
        ValueError: If maps are wanted and the head has no closed form of them, or the model
            gives NaN.
        RuntimeError: If the difference is above 1e-4; the file is not written then.
    """
    with needs_extra('export', 'The export'):
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    path = Path(path)
    # On the CPU and in fp32, as onnxruntime runs it: a GPU may multiply in TF32, which is further
    # from both than an export may be.
    classifier = copy.deepcopy(unwrap_classifier(model)).cpu().float()
    # The check runs on another number of images than the graph was traced with.
    images = torch.randint(0, 256, (3, 3, *image_size), generator=torch.Generator().manual_seed(0))
    images = images.float()
    with left_as_found(classifier), torch.no_grad(), torch.autocast('cpu', enabled=False):
        exportable = ExportableClassifier(classifier, with_maps).eval()
        if with_maps and _has_no_maps(classifier, images[:1]):
            raise ValueError(
                f'The class maps of `{type(classifier.head).__name__}` behind this neck have no '
                'closed form that a graph could hold: export without maps.'
            )
        expected = exportable(images)
        check_no_nan(expected[0] if with_maps else expected)
        proto = _to_onnx(exportable, images[:2])
    onnx.helper.set_model_props(proto, _metadata(classifier))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=['CPUExecutionProvider']
    )
    actual = session.run(None, dict(images=images.numpy()))
    difference = _difference(actual, expected if with_maps else (expected,))
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f'The exported model differs from PyTorch by {difference:.2g}, which is '
            f'more than {TOLERANCE:g}; it was not written.'
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)
    return difference


def _to_onnx(exportable: ExportableClassifier, images: Tensor) -> 'onnx.ModelProto':
    names = ['scores', 'maps'] if exportable.with_maps else ['scores']
    # In two steps: torch.onnx alone would try other ways where the batch cannot be left open.
    with compat.open_batch_of_windows():
        program = torch.export.export(
            exportable, (images,), dynamic_shapes=({0: torch.export.Dim('batch')},)
        )
    return torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        input_names=['images'],
        output_names=names,
    ).model_proto


def _has_no_maps(model: nn.Module, images: Tensor) -> bool:
    feats = model.extract_feat(
        model.data_preprocessor(dict(inputs=images))['inputs'], stage='backbone'
    )
    return closed_form(model, feats) is None


def _metadata(model: nn.Module) -> dict[str, str]:
    to_rgb = getattr(model.data_preprocessor, 'to_rgb', False)
    metadata = dict(
        classes=json.dumps(classes_of(model), ensure_ascii=False),
        channels='RGB' if to_rgb else 'as the pipeline packs them',
    )
    thresholds = (getattr(model, '_dataset_meta', None) or {}).get('thresholds')
    if thresholds is not None:
        metadata['thresholds'] = json.dumps(list(thresholds))
    return metadata


def _difference(actual: list[np.ndarray], expected: tuple[Tensor, ...]) -> float:
    scores = float(np.abs(actual[0] - expected[0].numpy()).max())
    if len(expected) == 1:
        return scores
    maps = expected[1].numpy()
    return max(scores, float(np.abs(actual[1] - maps).max() / max(1.0, maps.max())))
