"""What a cache entry is made from, and the key that follows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import Logger
from typing import Any

from torch import nn

from mhc_plugin.features.describe import describe_dataset, describe_module
from mhc_plugin.features.versions import UndescribableError, library_version
from mhc_plugin.models import FrozenBackboneClassifier

from .options import CacheOptions
from .spec import FeatureSpec, backbone_features
from .store import Entry, FeatureStore, FileHashes, Layout, make_key, unshared
from .views import PipelineTraits, ViewDataset, stack_views

# Libraries that read, transform and compute on pixels. Others count where a transform or a layer
# comes from them.
PIXEL_LIBRARIES = ('torch', 'torchvision', 'numpy', 'PIL', 'cv2', 'mmcv', 'mmpretrain')
# Attributes of the data preprocessor that concern labels and training.
LABEL_ATTRIBUTES = ('num_classes', 'to_onehot', 'batch_augments')


@dataclass(frozen=True)
class FeaturePlan:
    """An entry of the cache and how to fill it.

    Args:
        key (str): The entry's key.
        description (dict): What the key was made from.
        layout (Layout): The layout, for a new entry.
        spec (FeatureSpec): What is stored.
        seed (int): Seed of the views.
        maps_key (str, optional): Key of an entry of maps to pool, in the place of images.
    """

    key: str
    description: dict
    layout: Layout
    spec: FeatureSpec
    seed: int
    maps_key: str | None = None

    @classmethod
    def make(
        cls,
        model: FrozenBackboneClassifier,
        dataset: Sequence,
        seed: int,
        options: CacheOptions,
        logger: Logger,
    ) -> 'FeaturePlan':
        """Look at model and data, and describe them.

        Args:
            model (FrozenBackboneClassifier): The model.
            dataset (Sequence): The dataset of images.
            seed (int): The runner's seed.
            options (CacheOptions): The options.
            logger (Logger): Told what is worth knowing.
        """
        traits = PipelineTraits.of(dataset)
        # Without random numbers all views are the same, whatever the seed.
        views, seed = (options.views, seed) if traits.is_random else (1, 0)
        if views < options.views:
            logger.info(
                'The pipeline draws no random numbers: one view per image is stored, not '
                f'{options.views}.'
            )
        spec, shapes = _feature_shapes(model, dataset, seed, options)
        layout = Layout.plan(len(dataset), views, shapes, options.storage)
        description = dict(
            features=spec.describe(),
            precision=options.precision,
            storage=options.storage,
            views=views,
            seed=seed if traits.is_random else None,
            libraries=[library_version(name) for name in PIXEL_LIBRARIES],
        )
        try:
            hashes = FeatureStore(options.cache_dir).file_hashes(options.trust_mtime)
            description |= dict(
                backbone=_summary(model.backbone, hashes),
                neck=_summary(model.neck, hashes) if spec.stage == 'neck' else None,
                preprocessor=describe_preprocessor(model.data_preprocessor, hashes),
                data=describe_dataset(dataset, hashes, with_labels=not traits.keeps_labels),
            )
            hashes.save()
        except UndescribableError as error:
            logger.warning(
                f'These features are not shared with other runs, since what they are '
                f'made from cannot be described: {error}.'
            )
            description |= unshared(str(error))
        return cls(make_key(description), description, layout, spec, seed)

    def over_stored_maps(self, store: FeatureStore) -> 'FeaturePlan':
        """The same plan, from stored maps where there are any to pool."""
        if self.spec.pool is None or store.entry(self.key).is_complete():
            return self
        for entry in store.entries():
            if self._can_pool(entry):
                description = {**self.description, 'pooled_from': entry.key}
                return replace(
                    self, key=make_key(description), description=description, maps_key=entry.key
                )
        return self

    def _can_pool(self, entry: Entry) -> bool:
        manifest = entry.read_manifest()
        stored, wanted = manifest['description'], self.description
        if not manifest['complete'] or _without_features(stored) != _without_features(wanted):
            return False
        features, needed = stored['features'], wanted['features']
        return (
            features['stage'] == needed['stage']
            and features['pool'] is None
            and set(needed['positions']) <= set(features['positions'])
        )


def describe_preprocessor(preprocessor: nn.Module, file_hash: FileHashes) -> dict:
    """What a data preprocessor does to pixels."""
    whole = describe_module(preprocessor, file_hash)
    own = {
        name: value for name, value in whole['modules'][''].items() if name not in LABEL_ATTRIBUTES
    }
    return dict(weights=whole['weights'], own=own)


def _summary(module: nn.Module, file_hash: FileHashes) -> dict:
    """A module's description with its hundreds of layers hashed, so that people can read it."""
    whole = describe_module(module, file_hash)
    return dict(
        code=whole['modules']['']['code'],
        weights=whole['weights'],
        layers=make_key(whole['modules']),
    )


def _without_features(description: dict) -> dict[str, Any]:
    return {name: value for name, value in description.items() if name != 'features'}


def _feature_shapes(
    model: FrozenBackboneClassifier, dataset: Sequence, seed: int, options: CacheOptions
) -> tuple[FeatureSpec, tuple]:
    """What is stored, with positions resolved, and the shapes of one image's features."""
    images, _ = stack_views([ViewDataset(dataset, seed)[0]])
    spec = FeatureSpec.of(model, options.store)
    feats = backbone_features(model, images, spec.stage)
    spec = spec.resolve(len(feats))
    shapes = [tuple(feat.shape[1:]) for feat in spec.select(feats)]
    return spec, tuple(shape if i in spec.positions else None for i, shape in enumerate(shapes))
