"""What ``tools/feature_cache.py`` does with the entries of a feature cache."""

import json
import re
import time
from datetime import datetime
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mhc_plugin.features.store.files import format_bytes
from mhc_plugin.features.store.manifest import Entry, Layout, is_shared
from mhc_plugin.features.store.store import FeatureStore

KEY_DIGITS = 12
SIZE = re.compile(r'(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?', re.IGNORECASE)


def entries_table(store: FeatureStore) -> Table:
    """A table of all entries, the last used first."""
    table = Table(title=store.report(), title_justify='left', box=SIMPLE_HEAD)
    for column, justify in dict(
        key='left',
        images='right',
        views='right',
        features='left',
        stored='left',
        computed='left',
        size='right',
        state='left',
        used='left',
    ).items():
        table.add_column(column, justify=justify)
    for entry in store.entries():
        manifest = entry.read_manifest()
        layout = Layout.from_dict(manifest['layout'])
        table.add_row(
            entry.key[:KEY_DIGITS],
            str(layout.num_samples),
            str(layout.views),
            _shapes(layout),
            layout.storage,
            manifest['description'].get('precision', ''),
            format_bytes(entry.size()),
            _state(entry, manifest, layout),
            _when(entry),
        )
    return table


def entry_report(entry: Entry) -> str:
    """Everything that is known of an entry, as indented JSON."""
    manifest = entry.read_manifest()
    layout = Layout.from_dict(manifest['layout'])
    facts = dict(
        key=entry.key,
        path=str(entry.path),
        state=_state(entry, manifest, layout),
        size=format_bytes(entry.size()),
        last_used=_when(entry),
        features=_shapes(layout),
        layout=manifest['layout'],
        made_from=manifest['description'],
    )
    return json.dumps(facts, indent=2)


def parse_size(text: str) -> int:
    """Bytes of a size such as ``'10G'``, ``'1.5 GiB'`` or ``'4096'``; units are powers of 1024.

    Raises:
        ValueError: If the text is no size.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"Expected a size such as '500M' or '20G', but got {text!r}.")
    return int(float(match[1]) * 1024 ** ' KMGT'.index(match[2].upper() or ' '))


def _shapes(layout: Layout) -> str:
    return ', '.join('x'.join(map(str, layout.shapes[i])) for i in layout.positions)


def _state(entry: Entry, manifest: dict[str, Any], layout: Layout) -> str:
    if manifest['complete']:
        return 'complete' if is_shared(manifest['description']) else 'complete, not shared'
    there = layout.num_chunks - len(entry.damaged_chunks(layout, check_content=False))
    return f'{there} of {layout.num_chunks} chunks'


def _when(entry: Entry) -> str:
    used = datetime.fromtimestamp(entry.last_used())
    days = (time.time() - entry.last_used()) / (24 * 3600)
    return f'{used:%Y-%m-%d %H:%M}' + (f', {days:.0f} days ago' if days >= 1 else '')
