"""Prediction with several labels per image."""

import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmpretrain import ImageClassificationInferencer, get_model
from mmpretrain.apis.model import ModelHub
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer
from PIL import Image as PILImage

from mhc_plugin.class_maps import predictions_with_maps, unwrap_classifier
from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.fonts import font_families, missing_glyphs_were_told
from mhc_plugin.class_maps.panels import MapView, draw_panel
from mhc_plugin.datasets.images import Image, ImagePipeline, batches, list_images
from mhc_plugin.functional.thresholds import predicted_mask
from mhc_plugin.utils.logs import progress

from .model import classes_of, load_model


class MultiLabelInferencer(ImageClassificationInferencer):
    """Predict the labels of images.

    Which labels: those whose scores reach ``thr``, or the ``topk`` highest scores, of the call,
    else of the constructor, else the thresholds that were chosen on validation data and are
    stored with the checkpoint, else the head's own ``thr`` or ``topk``.

    Args:
        model (BaseModel | Config | str): A model that knows its config, a config, the path of
            one, or the name of a config of this package or of MMPretrain.
        pretrained (str, optional): A checkpoint. Defaults to None, which means MMPretrain's
            weights for its own names; and for a config, an untrained head behind the published
            backbone.
        device (str | torch.device, optional): Defaults to CUDA where there is any, else CPU.
        classes (Sequence[str], optional): Names of the classes. Defaults to the model's.
        thr (float | Sequence[float], optional): One threshold, or one per class.
        topk (int, optional): Number of labels per image.
        tta (bool): Average the scores of the image and its mirror image, or of the views of the
            config's ``tta_pipeline``. Defaults to False.

    Raises:
        FileNotFoundError: If there is no such config or checkpoint.
        ValueError: If the checkpoint is of another model, or ``thr`` or ``topk`` do not fit the
            number of classes.

    Examples:
        >>> inferencer = MultiLabelInferencer('efficientnet-lite0_multifc_voc', 'epoch_30.pth')
        >>> inferencer('photos/', topk=3)[0]['pred_class']
        ['dog', 'person', 'sofa']
    """

    def __init__(
        self,
        model: BaseModel | Config | str,
        pretrained: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        thr: float | Sequence[float] | None = None,
        topk: int | None = None,
        tta: bool = False,
    ) -> None:
        if not isinstance(model, BaseModel):
            model, pretrained = _load(model, pretrained, device), None
        unwrap_classifier(model)
        if getattr(model, '_config', None) is None:
            raise ValueError(
                'Expected argument `model` to know its config, which says how to '
                'prepare images: load it with `mhc_plugin.apis.load_model` or '
                '`mmpretrain.get_model`.'
            )
        self.tta = tta
        super().__init__(model, pretrained=pretrained, device=device, classes=classes)
        self.classes = list(self.classes) if self.classes else classes_of(self.model)
        self.thr, self.topk = self._default_rule(thr, topk)
        self._check_rule(self.thr, self.topk)
        self.predictor = self.model
        if tta:
            tta_model = self.config.get('tta_model') or dict(type='MultiLabelScoreTTA')
            self.predictor = MODELS.build(dict(tta_model, module=self.model))

    def __call__(
        self,
        inputs: Image | Sequence[Image],
        return_datasamples: bool = False,
        batch_size: int = 32,
        thr: float | Sequence[float] | None = None,
        topk: int | None = None,
        maps: bool | str = False,
        show_dir: str | os.PathLike | None = None,
    ) -> list:
        """Predict.

        Args:
            inputs (str | PathLike | np.ndarray | Sequence): A file, folder, glob pattern, array
                (BGR), or a list of any of these.
            return_datasamples (bool): Return ``DataSample`` instead of dicts. Defaults to False.
            batch_size (int): Defaults to 32.
            thr (float | Sequence[float], optional): One threshold, or one per class.
            topk (int, optional): Number of labels per image.
            maps (bool | str): Give class maps, too: True for inherent ones, or the name of a
                method. Defaults to False.
            show_dir (str | PathLike, optional): Folder to draw a picture of every image into:
                with maps a panel, else the image with its labels.

        Returns:
            list[dict | DataSample]: One for each image in order. A dict has ``img_path`` (None
            for an array), ``pred_scores`` (float32 (num_classes,)), ``pred_label`` (list of
            indices, best first), ``pred_class`` (their names), and on request ``class_maps``
            (float32 (num_classes, h, w)) and ``picture`` (a path). For an image that cannot be
            read it has ``img_path`` and ``error``; a data sample then has ``error`` alone.

        Raises:
            FileNotFoundError: If a folder or pattern holds no image.
            ValueError: If ``thr``, ``topk`` or ``maps`` do not fit, or a score is NaN.
        """
        images = list_images(inputs)
        results = self.predict_each(
            images, return_datasamples, batch_size, thr, topk, maps, show_dir
        )
        return list(progress(results, 'Inference', len(images)) if len(images) > 1 else results)

    def predict_each(
        self,
        inputs: Image | Sequence[Image],
        return_datasamples: bool = False,
        batch_size: int = 32,
        thr: float | Sequence[float] | None = None,
        topk: int | None = None,
        maps: bool | str = False,
        show_dir: str | os.PathLike | None = None,
    ) -> Iterator[dict | DataSample]:
        """Predict one batch after the other, and keep nothing of those that are done.

        Arguments and errors are those of :meth:`__call__`, which makes a list of this.

        Yields:
            dict | DataSample: One for each image in order.
        """
        if maps and self.tta:
            raise ValueError(
                'Expected one of `maps` and `tta`: the views of an image have maps of their own.'
            )
        self._check_rule(*self._rule(thr, topk))
        method = 'inherent' if maps is True else maps
        failed: list[DataSample] = []
        for batch in batches(self._readable(list_images(inputs), failed), batch_size):
            # Around each batch, so that the model is as it was while the caller has a result.
            with predictions_with_maps(self.model, method) if maps else nullcontext():
                samples = self.predict_batch(batch, thr, topk)
            if show_dir is not None:
                for index, sample in enumerate(samples):
                    self._draw(sample, batch['inputs'], index, Path(show_dir), bool(maps))
            # What failed up to here comes before the next batch.
            done = sorted(failed + samples, key=lambda sample: sample.sample_idx)
            failed.clear()
            del batch, samples
            yield from self._hand_out(done, return_datasamples)
        yield from self._hand_out(failed, return_datasamples)

    def predict_batch(
        self, batch: dict, thr: float | Sequence[float] | None = None, topk: int | None = None
    ) -> list[DataSample]:
        """Predict what a pipeline has packed and :func:`batches` has collated.

        Raises:
            ValueError: If a score is NaN.
        """
        samples = self.forward(batch)
        scores = torch.stack([sample.pred_score for sample in samples])
        for sample, mask in zip(samples, predicted_mask(scores, *self._rule(thr, topk))):
            labels = mask.nonzero()[:, 0]
            order = sample.pred_score[labels].argsort(descending=True, stable=True)
            sample.set_pred_label(labels[order])
        return samples

    @torch.no_grad()
    def forward(self, inputs: dict) -> list[DataSample]:
        """Run the model, or its views under test-time augmentation, on a collated batch."""
        return self.predictor.test_step(inputs)

    def to_dict(self, sample: DataSample) -> dict:
        """Turn a prediction into plain values; see :meth:`__call__`."""
        result = dict(img_path=sample.get('img_path'))
        if 'error' in sample:
            return dict(result, error=sample.error)
        labels = sample.pred_label.tolist()
        result.update(
            pred_scores=sample.pred_score.cpu().numpy(),
            pred_label=labels,
            pred_class=[self.classes[label] for label in labels],
        )
        if 'pred_cam' in sample:
            result['class_maps'] = sample.pred_cam.cpu().numpy()
        if 'picture' in sample:
            result['picture'] = sample.picture
        return result

    def _hand_out(
        self, samples: list[DataSample], return_datasamples: bool
    ) -> Iterator[dict | DataSample]:
        while samples:
            sample = samples.pop(0).cpu()
            yield sample if return_datasamples else self.to_dict(sample)

    def _init_pipeline(self, cfg: Config) -> ImagePipeline:
        return ImagePipeline(cfg, tta=self.tta)

    def _readable(
        self, images: Sequence[str | np.ndarray], failed: list[DataSample]
    ) -> Iterator[dict]:
        for index, image in enumerate(images):
            try:
                item = self.pipeline(image)
            except (OSError, ValueError) as error:
                meta = dict(sample_idx=index, error=str(error))
                if isinstance(image, str):
                    meta['img_path'] = image
                failed.append(DataSample(metainfo=meta))
                continue
            views = item['data_samples']
            for view in views if isinstance(views, list) else [views]:
                view.set_metainfo(dict(sample_idx=index))
            yield item

    def _draw(self, sample: DataSample, inputs, index: int, folder: Path, with_maps: bool) -> None:
        packed = inputs[0][index] if self.tta else inputs[index]
        image = packed_to_rgb(packed, self.model.data_preprocessor)
        name = Path(sample.get('img_path') or 'image').stem
        # Images of several folders may have one name.
        picture = folder / f'{sample.sample_idx:05d}_{name}.png'
        folder.mkdir(parents=True, exist_ok=True)
        if with_maps:
            panel = draw_panel(image, [MapView.of(sample)], self.classes, title=name)
            PILImage.fromarray(panel).save(picture)
        else:
            visualizer = self.visualizer or UniversalVisualizer()
            self.visualizer = visualizer
            fonts = font_families([name, *self.classes], visualizer.DEFAULT_TEXT_CFG['family'])
            with missing_glyphs_were_told():
                visualizer.visualize_cls(
                    image,
                    sample,
                    classes=self.classes,
                    resize=448,
                    draw_gt=False,
                    text_cfg=dict(family=fonts),
                    name=name,
                    out_file=str(picture),
                )
        sample.set_metainfo(dict(picture=str(picture)))

    def _rule(self, thr, topk: int | None) -> tuple:
        """The rule of a call, or the inferencer's own."""
        return (self.thr, self.topk) if thr is None and topk is None else (thr, topk)

    def _default_rule(self, thr, topk):
        if thr is not None or topk is not None:
            return thr, topk
        stored = (getattr(self.model, '_dataset_meta', None) or {}).get('thresholds')
        if stored is not None:
            return stored, None
        thr, topk = getattr(self.model.head, 'thr', None), getattr(self.model.head, 'topk', None)
        # The `topk` of a single-label head is a tuple: what its accuracy counts.
        return (thr, topk) if thr is not None or isinstance(topk, int) else (0.5, None)

    def _check_rule(self, thr, topk: int | None) -> None:
        predicted_mask(torch.zeros(1, len(self.classes)), thr, topk)


def _load(
    model: Config | str, pretrained: str | os.PathLike | None, device: str | torch.device | None
) -> BaseModel:
    """Load a model by config, or one of MMPretrain's by its name."""
    if isinstance(model, str) and not model.endswith('.py'):
        ModelHub._register_mmpretrain_models()
        known = ModelHub._models_dict.get(model.lower())
        if known is not None and known.weights is not None:
            return get_model(model, pretrained=pretrained or True, device=device)
    return load_model(model, pretrained, device)
