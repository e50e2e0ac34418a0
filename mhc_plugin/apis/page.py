"""A local page: drop an image, see labels, scores and a class map per class."""

from typing import TYPE_CHECKING

import numpy as np

from mhc_plugin.class_maps.display import packed_to_rgb
from mhc_plugin.class_maps.panels import MapView, draw_panel
from mhc_plugin.datasets.images import batches
from mhc_plugin.utils.missing import needs_extra

from .inferencer import MultiLabelInferencer

if TYPE_CHECKING:
    import gradio


def build_page(inferencer: MultiLabelInferencer, title: str = 'mhc_plugin') -> 'gradio.Blocks':
    """Build the page of a model.

    Args:
        inferencer (MultiLabelInferencer): The model.
        title (str): Title of the page. Defaults to 'mhc_plugin'.

    Returns:
        gradio.Blocks: The page; ``launch()`` serves it.

    Raises:
        ImportError: If Gradio is not installed.
    """
    with needs_extra('page', 'The page'):
        import gradio as gr

    def show(image: np.ndarray | None) -> tuple[str, dict | None, np.ndarray | None]:
        return ('', None, None) if image is None else explain(inferencer, image)

    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Markdown(
            f'# {title}\nDrop an image: its labels, the score of every class, and where in '
            'the image each score comes from.'
        )
        with gr.Row():
            image = gr.Image(type='numpy', label='Image', sources=['upload', 'clipboard'])
            with gr.Column():
                labels = gr.Textbox(label='Labels', interactive=False)
                scores = gr.Label(label='Scores', num_top_classes=10)
        panel = gr.Image(
            label='Class maps', interactive=False, format='png', buttons=['fullscreen', 'download']
        )
        # One event, so that the page asks the model for one image at a time.
        image.change(show, inputs=image, outputs=[labels, scores, panel])
    return page


def explain(
    inferencer: MultiLabelInferencer, image: np.ndarray
) -> tuple[str, dict[str, float], np.ndarray]:
    """Predict one image and draw its class maps.

    Args:
        inferencer (MultiLabelInferencer): The model.
        image (np.ndarray): RGB, uint8 (H, W, 3).

    Returns:
        tuple[str, dict[str, float], np.ndarray]: The labels, separated by commas; the score of
        every class by name; and the panel, RGB uint8.
    """
    pixels = np.ascontiguousarray(image[..., ::-1])
    (sample,) = inferencer([pixels], return_datasamples=True, maps=True)
    packed = next(batches([inferencer.pipeline(pixels)], 1))['inputs'][0]
    shown = packed_to_rgb(packed, inferencer.model.data_preprocessor)
    panel = draw_panel(shown, [MapView.of(sample)], inferencer.classes)
    result = inferencer.to_dict(sample)
    scores = {name: float(score) for name, score in zip(inferencer.classes, result['pred_scores'])}
    return ', '.join(result['pred_class']) or '(none)', scores, panel
