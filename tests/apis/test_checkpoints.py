import shutil

import pytest
import torch

from mhc_plugin.apis.checkpoints import RESUMABLE, check_readable, newest_readable, what_is_wrong


def save(path):
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(meta=dict(epoch=1), state_dict=dict(w=torch.ones(1000)), message_hub={}), path)
    return path


def truncate(path):
    path.write_bytes(path.read_bytes()[:1000])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    where = content.index(torch.ones(8).numpy().tobytes())
    content[where] ^= 1
    path.write_bytes(content)


class TestNewestReadable:
    @pytest.fixture
    def work_dir(self, tmp_path):
        for epoch in (2, 9, 10):
            save(tmp_path / f'epoch_{epoch}.pth')
        save(tmp_path / 'best_multi-label_mAP_epoch_11.pth')
        (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_10.pth'))
        return tmp_path

    def test_by_number(self, work_dir):
        assert newest_readable(work_dir) == (work_dir / 'epoch_10.pth', [])

    def test_one_that_was_written_but_not_noted_down(self, work_dir):
        (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
        assert newest_readable(work_dir)[0] == work_dir / 'epoch_10.pth'

    @pytest.mark.parametrize('damage', [truncate, flip_a_bit, lambda path: path.write_bytes(b'')])
    def test_falls_back_and_says_what_is_wrong(self, work_dir, damage):
        damage(work_dir / 'epoch_10.pth')
        path, problems = newest_readable(work_dir)
        assert path == work_dir / 'epoch_9.pth'
        assert len(problems) == 1
        assert str(work_dir / 'epoch_10.pth') in problems[0]

    def test_none_can_be_read(self, work_dir):
        for path in work_dir.glob('epoch_*.pth'):
            truncate(path)
        with pytest.raises(
            ValueError,
            match=r'None of the checkpoints can be read: .*epoch_10\.pth'
            r'.*epoch_9\.pth.*epoch_2\.pth.*Delete them',
        ):
            newest_readable(work_dir)

    def test_no_checkpoint(self, tmp_path):
        assert newest_readable(tmp_path) == (None, [])
        assert newest_readable(tmp_path / 'not_there') == (None, [])

    def test_a_copied_folder_has_checkpoints_of_its_own(self, work_dir, tmp_path_factory):
        copy = tmp_path_factory.mktemp('copies') / 'copy'
        shutil.copytree(work_dir, copy)
        save(work_dir / 'epoch_11.pth')
        (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_11.pth'))
        (copy / 'last_checkpoint').write_text(str(work_dir / 'epoch_10.pth'))
        assert newest_readable(copy) == (copy / 'epoch_10.pth', [])

    def test_another_folder_where_this_one_has_none_and_said_aloud(
        self, work_dir, tmp_path_factory
    ):
        near = tmp_path_factory.mktemp('near')
        (near / 'last_checkpoint').write_text(str(work_dir / 'epoch_9.pth'))
        path, (note,) = newest_readable(near)
        assert path == work_dir / 'epoch_10.pth'
        assert note.startswith(f'{near} has no checkpoint of its own;')
        assert str(work_dir) in note

    def test_another_name(self, tmp_path):
        path = save(tmp_path / 'mine.pth')
        (tmp_path / 'last_checkpoint').write_text(str(path))
        assert newest_readable(tmp_path) == (path, [])

    def test_same_folder_by_two_names(self, work_dir, monkeypatch):
        monkeypatch.chdir(work_dir.parent)
        truncate(work_dir / 'epoch_10.pth')
        assert len(newest_readable(work_dir.relative_to(work_dir.parent))[1]) == 1


class Hostile:
    def __reduce__(self):
        return print, ('it ran',)


@pytest.mark.parametrize(
    ('content', 'problem'),
    [
        (dict(state_dict={}), 'it holds no message_hub, meta'),
        ([1], 'it holds a list, and no weights by name'),
        (dict(state_dict=Hostile()), 'it holds `print`, which is no weight'),
        (b'no pickle', 'it is no file that torch.save has written'),
        (b'', 'reading it failed with "EOFError'),
    ],
)
def test_what_is_wrong(tmp_path, capsys, content, problem):
    path = tmp_path / 'a.pth'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert what_is_wrong(path, RESUMABLE).startswith(problem)
    with pytest.raises(ValueError, match=r'cannot be used: (it|reading it) ') as caught:
        check_readable(path, RESUMABLE)
    # One line, with the file's name and without codes for a terminal.
    assert str(path) in str(caught.value)
    assert not set('\n\x1b') & set(str(caught.value))
    assert capsys.readouterr().out == ''


def test_weights_alone_can_be_tested(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    check_readable(tmp_path / 'a.pth')
    with pytest.raises(FileNotFoundError, match=r'There is no checkpoint .*b\.pth'):
        check_readable(tmp_path / 'b.pth')
