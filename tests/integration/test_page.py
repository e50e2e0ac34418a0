"""The page, opened and clicked through in a headless Chromium."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from socket import create_server
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from PIL import Image

from mhc_plugin import apis

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHROMIUM_FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
]


@pytest.fixture(scope='module')
def checkpoint(tiny_config, tmp_path_factory):
    path = tmp_path_factory.mktemp('model') / 'model.pth'
    model = apis.load_model(tiny_config(), device='cpu')
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.fc.weight)
    torch.save(
        dict(
            state_dict=model.state_dict(),
            message_hub={},
            meta=dict(dataset_meta=dict(classes=[f'digit {digit}' for digit in range(10)])),
        ),
        path,
    )
    return path


@pytest.fixture
def page_of_chromium():
    """A page of a headless Chromium, or a skip that says what is missing."""
    sync_api = pytest.importorskip(
        'playwright.sync_api', reason='needs playwright: pip install playwright'
    )
    chromium = next(
        filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
    )
    if chromium is None:
        pytest.skip('needs a Chromium: apt-get install chromium')
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport=dict(width=1280, height=1400))
        page.set_default_timeout(60_000)
        yield page
        browser.close()


@pytest.fixture
def address(checkpoint, environment, tmp_path):
    """Where the tool serves the page."""
    pytest.importorskip('gradio', reason='needs gradio: pip install "mhc_plugin[page]"')
    with create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / 'log').open('w') as log:
        server = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / 'tools/demo.py'),
                str(HERE / 'tiny.py'),
                str(checkpoint),
                '--port',
                str(port),
                '--topk',
                '2',
            ],
            stdout=log,
            stderr=log,
            cwd=tmp_path,
            env=dict(
                environment, **{name: value for name, value in os.environ.items() if name == 'HOME'}
            ),
        )
        try:
            yield _wait_for(f'http://127.0.0.1:{port}/', server, tmp_path / 'log')
        finally:
            server.terminate()
            server.wait(30)


def _wait_for(url, server, log, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            with urlopen(url, timeout=10):
                return url
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f'the page did not come up: {log.read_text()}')


@pytest.mark.browser
def test_drop_an_image_and_take_it_away(
    address, page_of_chromium, make_image, tmp_path, checkpoint
):
    page = page_of_chromium
    picture = make_image(tmp_path / 'photo.png', size=(60, 40))
    page.goto(address)
    page.set_input_files('input[type=file]', str(picture))
    expected = apis.MultiLabelInferencer(str(HERE / 'tiny.py'), checkpoint, topk=2)(str(picture))[0]
    labels = ', '.join(expected['pred_class'])
    page.wait_for_function(
        '(labels) => [...document.querySelectorAll("textarea")].some(x => x.value === labels)',
        arg=labels,
    )
    page.get_by_text('digit 9', exact=True).first.wait_for()
    page.wait_for_function('() => [...document.images].some(x => x.naturalWidth > 600)')
    if 'MHC_SCREENSHOT' in os.environ:
        page.screenshot(path=os.environ['MHC_SCREENSHOT'], full_page=True)

    page.get_by_role('button', name=re.compile('Remove Image|Clear')).first.click()
    page.wait_for_function(
        '() => [...document.querySelectorAll("textarea")].every(x => x.value === "")'
    )


def test_explanation_of_an_image(checkpoint, make_image, tmp_path):
    from mhc_plugin.apis.page import explain

    path = make_image(tmp_path / 'photo.png', size=(60, 40))
    inferencer = apis.MultiLabelInferencer(str(HERE / 'tiny.py'), checkpoint, topk=2)
    labels, scores, panel = explain(inferencer, np.asarray(Image.open(path)))
    expected = inferencer(str(path))[0]
    assert labels == ', '.join(expected['pred_class'])
    assert list(scores.values()) == pytest.approx(expected['pred_scores'].tolist(), abs=1e-5)
    assert panel.ndim == 3


def test_gradio_is_asked_for(monkeypatch):
    from mhc_plugin.apis.page import build_page

    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(ImportError, match=r'pip install "mhc_plugin\[page\]"'):
        build_page(None)
