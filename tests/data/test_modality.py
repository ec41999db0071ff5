"""Modalities by name, and what each of them implements."""

import sys
from types import SimpleNamespace

import pytest

from bridle_fairseq.data.modalities import CLASSES, modality_named, modality_of
from bridle_fairseq.data.modality import Modality
from bridle_fairseq.nn.frontend import FRONT_ENDS
from bridle_fairseq.nn.settings import PATCH_AXES
from bridle_fairseq.utils.errors import InputError


def test_every_modality_has_files_a_front_end_and_a_setting():
    assert tuple(CLASSES) == tuple(FRONT_ENDS) == tuple(PATCH_AXES)
    for name in CLASSES:
        modality = modality_named(name)
        assert isinstance(modality, Modality)
        assert modality.name == name and modality.files and all(e == e.lower() for e in modality.extensions)


def test_incomplete_modality_cannot_be_created():
    class Smell(Modality):
        name, files, extensions = "smell", "smells", ("nose",)

    with pytest.raises(TypeError, match="abstract"):
        Smell()


def test_configuration_without_modality_is_audio():
    assert modality_of(SimpleNamespace()).name == modality_of(None).name == "audio"
    assert modality_of(SimpleNamespace(modality="image")).name == "image"
    with pytest.raises(InputError, match="modality is 'smell'; expected one of audio, image, video"):
        modality_of(SimpleNamespace(modality="smell"))


@pytest.mark.parametrize(("name", "extra"), [("image", "images"), ("video", "video")])
def test_missing_pillow_names_the_extra_of_the_modality(monkeypatch, name, extra):
    for module in [module for module in sys.modules if module.startswith("bridle_fairseq.data.")]:
        if module.split(".")[2] in ("image", "video"):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=rf"need.* Pillow.*install it: pip install 'bridle_fairseq\[{extra}\]'"):
        modality_named(name)


def test_only_audio_has_segments_in_seconds():
    assert modality_named("audio").segment(SimpleNamespace(sample_rate=8000), 2.0) == 16000
    for name in ("image", "video"):
        assert modality_named(name).segment(SimpleNamespace()) == 1
        with pytest.raises(InputError, match="it is for sound"):
            modality_named(name).segment(SimpleNamespace(), 2.0)
