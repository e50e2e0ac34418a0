import pytest
from mmpretrain.registry import HOOKS, MODELS
from torch.utils.data import DataLoader

from mhc_plugin.cli.errors import in_one_sentence
from mhc_plugin.datasets import AnnotationError


def caught(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return in_one_sentence(error)
    pytest.fail('nothing was raised')


class Unreadable:
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError('Cannot read a.jpg: it is empty.')


class TestInOneSentence:
    def test_misspelt_type(self):
        assert caught(MODELS.build, dict(type='MultiHeadClsHed')) == (
            'There is no MultiHeadClsHed in the model registry of mmpretrain; did you mean '
            'MultiHeadClsHead or ConvMultiHeadClsHead or MultiLabelClsHead?'
        )
        # From MMEngine's registry, the parent.
        assert 'did you mean EMAHook' in caught(HOOKS.build, dict(type='EMAHok'))

    def test_type_that_nothing_is_close_to(self):
        assert 'custom_imports' in caught(MODELS.build, dict(type='zzzzzz'))

    def test_misspelt_argument(self):
        config = dict(type='MultiHeadClsHead', num_classes=2, in_channels=4, droput=1)
        assert "unexpected keyword argument 'droput'" in caught(MODELS.build, config)

    def test_error_in_a_worker(self):
        sentence = caught(lambda: list(DataLoader(Unreadable(), num_workers=1)))
        assert sentence == 'ValueError: Cannot read a.jpg: it is empty.'

    def test_missing_file(self):
        sentence = caught(open, '/not/there.txt')
        assert sentence.startswith('No such file or directory: /not/there.txt.')
        assert 'MHC_DATA_ROOT' in sentence

    def test_codes_for_a_terminal_are_left_out(self):
        assert in_one_sentence(ValueError('Do \x1b[1mthis\x1b[0m.')) == 'Do this.'

    def test_error_without_a_message(self):

        def fail():
            raise AssertionError

        assert caught(fail).startswith(f'AssertionError in {__file__}, line')

    @pytest.mark.parametrize(
        ('error', 'sentence'),
        [
            (ValueError('Expected a.'), 'Expected a.'),
            (AnnotationError('Expected a.', 'b.csv', 3), 'b.csv, line 3: Expected a.'),
            (FileNotFoundError('There is no config a.'), 'There is no config a.'),
            (IndexError('list index out of range'), 'IndexError: list index out of range'),
            (KeyError('img_path'), 'KeyError: img_path'),
        ],
    )
    def test_sentences_stand_alone_and_others_get_a_name(self, error, sentence):
        assert in_one_sentence(error) == sentence
