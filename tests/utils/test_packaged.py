"""Data files are found in a checkout and in an installed package."""

from bridle_fairseq.utils import packaged


def test_an_installed_folder_comes_before_that_of_a_checkout(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(packaged, "PACKAGE", tmp_path / "site-packages" / "package")
    beside = tmp_path / "site-packages" / "weights"
    assert packaged.packaged("weights") == beside
    (installed := packaged.PACKAGE / "weights").mkdir(parents=True)
    assert packaged.packaged("weights") == installed
