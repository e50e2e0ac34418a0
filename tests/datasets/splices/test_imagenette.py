"""Imagenette's folders under their several names."""

import pytest

from mhc_plugin.datasets import Imagenette
from mhc_plugin.datasets.splices.single_label import CLASSES, FOLDERS


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


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`split` to be 'train' or 'val', but got 'test'"):
        Imagenette(str(tmp_path), 'test')
