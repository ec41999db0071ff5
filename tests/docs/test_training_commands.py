"""Training commands in texts: given again, each resumes its run; and git ignores the folders that texts suggest."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
READMES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*/README.md"))]
OTHERS = ["manifests/README.md", "weights/README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "SECURITY.md"]
CONFIGURATIONS = sorted(ROOT.glob("examples/**/*.yaml"))
TEXTS = [*READMES, *(ROOT / name for name in OTHERS), *CONFIGURATIONS, *sorted(ROOT.glob("examples/**/*.sbatch"))]
ABSOLUTE = ("/", "$PWD/", "$WORK/", '"$RUN"')


def name_of(path):
    return str(path.relative_to(ROOT))


texts = pytest.mark.parametrize("path", TEXTS, ids=name_of)


def joined(path):
    """The text with continued lines joined, also those of comments."""
    return re.sub(r"\\\n#? *", "", path.read_text())


def training_commands(path):
    return [line for line in joined(path).splitlines() if re.search(r"fairseq-hydra-train\"? .*--config-name", line)]


def test_all_commands_are_found():
    assert len([path for path in CONFIGURATIONS if training_commands(path)]) >= 25
    assert len(training_commands(ROOT / "docs" / "scaling.md")) == 4
    assert len(training_commands(ROOT / "examples" / "slurm" / "pretrain.sbatch")) == 1


@texts
def test_training_commands_resume(path):
    """They do if the folders of the run and of its checkpoints are named, whole and the same."""
    for command in training_commands(path):
        options = dict(re.findall(r"(hydra\.run\.dir|checkpoint\.save_dir)=(\S+)", command))
        assert len(set(options.values())) == 1 and len(options) == 2, command
        assert options["hydra.run.dir"].startswith(ABSOLUTE), command
        assert "common.cpu" not in command, command  # fairseq finds out that there is no GPU


@texts
def test_suggested_folders_are_ignored_by_git(path, tmp_path):
    option = r"(?:--(?:out|dest|dir) |hydra\.run\.dir=|checkpoint\.save_dir=|\b(?:WORK|OUT)=)([^\s`\"',;)]+)"
    folders = {name.replace("$PWD/", "").replace("$WORK/", "work/") for name in re.findall(option, joined(path))}
    folders = sorted(name for name in folders if re.match(r"[a-z]", name))
    if not folders:
        return
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    command = ["git", "-C", tmp_path, "check-ignore", *(f"{name}/file" for name in folders)]
    ignored = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    assert {f"{name}/file" for name in folders} == set(ignored)
