"""Names that the model cards of older exports import, and what readers in Python say of bad files."""

import pytest

from bridle_fairseq import pretrained
from bridle_fairseq.data.clips import read_clip
from bridle_fairseq.data.pixels import read_image
from bridle_fairseq.utils.errors import DecodeError


def test_old_cards_import_the_same_readers(tmp_path):
    from PIL import Image

    Image.new("RGB", (5, 4), (10, 20, 30)).save(tmp_path / "a.png")
    assert (read_image(str(tmp_path / "a.png")) == pretrained.read_image(str(tmp_path / "a.png"))).all()


def test_old_cards_read_clips(write_video):
    path = write_video("a.mp4", frames=20)
    assert (read_clip(path, 4, 2) == pretrained.read_clip(path, 4, 2)).all()


def test_readers_name_the_file_that_cannot_be_read(tmp_path):
    with pytest.raises(DecodeError, match=r"^none.png: No such file"):
        pretrained.read_image("none.png")
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DecodeError, match=r"a.mp4: empty file$"):
        pretrained.read_clip(str(tmp_path / "a.mp4"))
