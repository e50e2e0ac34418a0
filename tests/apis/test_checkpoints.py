import pytest
import torch

from mhc_plugin.apis.checkpoints import newest_readable, what_is_wrong


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

    def test_another_folder_and_another_name(self, tmp_path):
        path = save(tmp_path / 'far' / 'mine.pth')
        work_dir = tmp_path / 'near'
        work_dir.mkdir()
        (work_dir / 'last_checkpoint').write_text(str(path))
        assert newest_readable(work_dir) == (path, [])

    def test_same_folder_by_two_names(self, work_dir, monkeypatch):
        monkeypatch.chdir(work_dir.parent)
        truncate(work_dir / 'epoch_10.pth')
        assert len(newest_readable(work_dir.relative_to(work_dir.parent))[1]) == 1


def test_weights_alone_cannot_be_resumed_from(tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'a.pth')
    assert what_is_wrong(tmp_path / 'a.pth') == 'it holds no message_hub, meta'
