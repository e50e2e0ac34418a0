"""Settings of the feature cache, as loops take them."""

from dataclasses import dataclass
from numbers import Integral

from .store import STORAGES

DEFAULT_CACHE_DIR = 'work_dirs/feature_cache'
PRECISIONS = ('fp32', 'bf16')
STORES = ('auto', 'maps')


@dataclass(frozen=True)
class CacheOptions:
    """Where and how features are stored.

    Args:
        cache_dir (str): Folder of the cache. Defaults to ``'work_dirs/feature_cache'``.
        views (int): Draws of the augmentation per image; 1 is taken where the pipeline draws
            nothing. Defaults to 1.
        precision (str): What the backbone computes in, ``'fp32'`` or ``'bf16'``. Defaults to
            ``'fp32'``.
        storage (str): ``'fp16'`` or ``'fp32'``. Defaults to ``'fp16'``.
        store (str): ``'auto'`` stores pooled vectors where the head needs no more, ``'maps'``
            always maps. Defaults to ``'auto'``.
        trust_mtime (bool): Whether an image whose size and times have not changed counts as
            unchanged. Defaults to False: every image's bytes are read.
        compile (bool): Whether to compile the backbone. Defaults to False.

    Raises:
        ValueError: If an option is none of these.
    """

    cache_dir: str = DEFAULT_CACHE_DIR
    views: int = 1
    precision: str = 'fp32'
    storage: str = 'fp16'
    store: str = 'auto'
    trust_mtime: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.views, Integral) or self.views < 1:
            raise ValueError(
                f'Expected argument `views` to be an int of at least 1, but got {self.views!r}.'
            )
        choices = dict(precision=PRECISIONS, storage=tuple(STORAGES), store=STORES)
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f'Expected argument `{name}` to be one of {allowed}, but got '
                    f'{getattr(self, name)!r}.'
                )
