"""The lazy finder: installed at interpreter start, cheap, and consistent with the list of patches."""

import importlib.util
import os
import subprocess
import sys

import fairseq_compat
from fairseq_compat import patches, versions


def test_interpreter_start_installs_only_the_finder():
    code = (
        "import sys; finders = [getattr(f, '__name__', '') for f in sys.meta_path];"
        "print(finders[0], 'fairseq_compat.patches' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.sep)
    assert done.stdout.split() == ["PatchingFinder", "False", "False"]


def test_watched_modules_are_the_patch_targets():
    assert fairseq_compat.WATCHED == {patch.target for patch in patches.PATCHES}


def test_docstrings_state_when_a_patch_is_needed():
    for patch in patches.PATCHES:
        assert patch.when in ("before", "after")
        assert patch.apply.__doc__.startswith("Needed on ")


def test_install_is_idempotent():
    fairseq_compat.install()
    assert sys.meta_path.count(fairseq_compat.PatchingFinder) == 1


def test_patches_run_around_the_module_and_restore_its_loader(tmp_path, monkeypatch):
    (tmp_path / "watched_sample.py").write_text("order.append('code')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(fairseq_compat, "WATCHED", {"watched_sample"})
    monkeypatch.setitem(versions.NEEDED_BY, "watched_sample", "fairseq")

    def before(module):
        module.order = ["before"]

    def after(module):
        module.order.append("after")

    monkeypatch.setattr(
        patches,
        "PATCHES",
        (patches.Patch("watched_sample", "after", after), patches.Patch("watched_sample", "before", before)),
    )
    import watched_sample

    monkeypatch.delitem(sys.modules, "watched_sample")
    assert watched_sample.order == ["before", "code", "after"]
    assert "exec_module" not in vars(watched_sample.__loader__)


def test_missing_module_is_not_found(monkeypatch):
    monkeypatch.setattr(fairseq_compat, "WATCHED", {"no_such_module_here"})
    monkeypatch.setitem(versions.NEEDED_BY, "no_such_module_here", "fairseq")
    assert importlib.util.find_spec("no_such_module_here") is None
