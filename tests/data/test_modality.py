"""Modalities by name, and what each of them has."""

from types import SimpleNamespace

import pytest

from bridle_fairseq.data.modality import MODULES, modality_named, modality_of
from bridle_fairseq.nn.frontend import FRONT_ENDS
from bridle_fairseq.nn.settings import CHOICES
from bridle_fairseq.utils.errors import InputError


def test_every_modality_has_its_files_its_front_end_and_its_setting():
    assert tuple(MODULES) == tuple(FRONT_ENDS) == CHOICES["modality"]
    for name in MODULES:
        modality = modality_named(name)
        assert modality.name == name and modality.files and all(e == e.lower() for e in modality.extensions)


def test_a_configuration_that_names_none_is_of_sound():
    assert modality_of(SimpleNamespace()).name == modality_of(None).name == "audio"
    assert modality_of(SimpleNamespace(modality="image")).name == "image"
    with pytest.raises(InputError, match="modality is 'smell'; expected one of audio, image, video"):
        modality_of(SimpleNamespace(modality="smell"))


def test_seconds_are_of_sound():
    assert modality_named("audio").segment(SimpleNamespace(sample_rate=8000), 2.0) == 16000
    for name in ("image", "video"):
        assert modality_named(name).segment(SimpleNamespace()) == 1
        with pytest.raises(InputError, match="it is for sound"):
            modality_named(name).segment(SimpleNamespace(), 2.0)
