"""scikit-learn's digits with our split of them, and Imagenette under its several names."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from mhc_plugin.datasets import Imagenette, SklearnDigits
from mhc_plugin.datasets.splices.single_label import CLASSES, FOLDERS, _draw_test


def as_bytes(image):
    framed = np.zeros((10, 10), np.uint8)
    framed[1:9, 1:9] = np.round(image * 255 / 16)
    return framed


def pixels(dataset):
    return [dataset.get_data_info(i)['img'] for i in range(len(dataset))]


def test_splits_are_all_digits_once():
    train, test = SklearnDigits('train'), SklearnDigits('test')
    assert (len(train), len(test)) == (1347, 450)
    seen = sorted(img.tobytes() for img in pixels(train) + pixels(test))
    assert seen == sorted(as_bytes(img).tobytes() for img in load_digits().images)
    assert not {img.tobytes() for img in pixels(train)} & {img.tobytes() for img in pixels(test)}


def test_samples_are_grey_bytes_with_the_labels_of_scikit_learn():
    digits = load_digits()
    labels = {
        as_bytes(image).tobytes(): label for image, label in zip(digits.images, digits.target)
    }
    dataset = SklearnDigits('test')
    assert dataset.metainfo['classes'] == tuple('0123456789')
    for idx in range(len(dataset)):
        info = dataset.get_data_info(idx)
        assert info['img'].dtype == np.uint8
        assert info['img'].shape == (10, 10)
        assert info['gt_label'] == labels[info['img'].tobytes()]


def test_every_class_gives_a_quarter_to_the_test_set():
    share = np.bincount(SklearnDigits('test').get_gt_labels()) / np.bincount(load_digits().target)
    assert np.abs(share - 0.25).max() < 0.005


def test_the_split_is_frozen():
    images = load_digits().images.astype(np.uint8)
    in_test = _draw_test(images, load_digits().target)
    assert np.flatnonzero(in_test)[:12].tolist() == [3, 7, 13, 16, 19, 22, 26, 36, 38, 43, 47, 48]


def test_equal_images_stay_together_even_under_two_labels():
    stream = np.random.RandomState(0)
    images = stream.randint(0, 256, (50, 2, 2), dtype=np.uint8)[stream.randint(0, 50, 400)]
    labels = stream.randint(0, 4, 400)
    in_test = _draw_test(images, labels)
    sides = {True: set(), False: set()}
    for image, side in zip(images, in_test):
        sides[bool(side)].add(image.tobytes())
    assert sides[True]
    assert not sides[True] & sides[False]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"`split` to be one of .*'test'.*, but got 'val'"):
        SklearnDigits('val')


def test_missing_scikit_learn_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'sklearn.datasets', None)
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'mhc_plugin\[demo\]'"):
        SklearnDigits('train')


def test_the_printed_form_names_the_split():
    assert 'Split: \ttrain' in repr(SklearnDigits('train'))


@pytest.fixture
def make_copy(tmp_path, make_image):
    def make(folder, images=2):
        for split in ('train', 'val'):
            for label, wnid in enumerate(CLASSES):
                class_folder = tmp_path / folder / split / wnid
                for number in range(images):
                    make_image(class_folder / f'{split}{number}.JPEG', seed=label)
        return tmp_path

    return make


@pytest.mark.parametrize('folder', FOLDERS)
@pytest.mark.parametrize('split', ['train', 'val'])
def test_wordnet_ids_are_shown_as_words(make_copy, folder, split):
    root = make_copy(folder)
    (root / folder / split / 'n01440764' / 'notes.txt').write_text('no image')
    (root / folder / split / '.cache').mkdir()
    dataset = Imagenette(str(root), split)
    assert dataset.metainfo['classes'][:2] == ('tench', 'English springer')
    assert len(dataset) == 20
    for idx in range(20):
        info = dataset.get_data_info(idx)
        wnid = info['img_path'].split('/')[-2]
        assert dataset.metainfo['classes'][info['gt_label']] == CLASSES[wnid]
        assert f'/{folder}/{split}/' in info['img_path']


def test_the_smallest_copy_is_taken(make_copy):
    make_copy('imagenette2')
    root = make_copy('imagenette2-160')
    assert 'imagenette2-160' in Imagenette(str(root)).get_data_info(0)['img_path']


def test_a_missing_data_root_says_what_was_looked_for_and_what_to_do(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"imagenette160' or '.*imagenette2-160' or .* does not exist: set MHC_DATA_ROOT",
    ):
        Imagenette(str(tmp_path))


def test_a_missing_class_is_named(make_copy):
    root = make_copy('imagenette160', images=1)
    folder = root / 'imagenette160' / 'train' / 'n03445777'
    (folder / 'train0.JPEG').unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError, match=r"images of 'golf ball' in '.*n03445777'"):
        Imagenette(str(root))


def test_another_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`split` to be one of .*'val'.*, but got 'test'"):
        Imagenette(str(tmp_path), 'test')
