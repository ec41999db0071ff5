"""Failed imports of optional dependencies."""

import sys

import pytest

from bridle_fairseq.utils.errors import InputError
from bridle_fairseq.utils.optional import optional_import

VIDEO = "video needs PyAV", "'bridle_fairseq[video]'"


def test_missing_package_is_reported_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(InputError) as raised, optional_import(*VIDEO):
        import json  # noqa: F401
    text = str(raised.value)
    assert text.startswith("video needs PyAV (import of json halted")
    assert text.endswith("); install it: pip install 'bridle_fairseq[video]'")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("operator nms does not exist\nC++ trace"), "operator nms does not exist"),
        (OSError("undefined symbol: _ZN3c10"), "undefined symbol: _ZN3c10"),
        (ImportError(), "ImportError"),
    ],
)
def test_binaries_for_another_torch_are_reported_in_one_line(error, reason):
    with pytest.raises(InputError) as raised, optional_import(*VIDEO):
        raise error
    assert str(raised.value) == f"video needs PyAV ({reason}); install it: pip install 'bridle_fairseq[video]'"


def test_import_that_works_and_other_errors_pass():
    with optional_import(*VIDEO):
        import json
    assert json.loads("1") == 1
    with pytest.raises(KeyError), optional_import(*VIDEO):
        raise KeyError("x")
