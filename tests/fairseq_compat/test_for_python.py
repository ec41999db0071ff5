"""Patches for Python versions: the error without each patch, and success with it."""

import sys

import pytest

IMPORT_HYDRA = "import hydra; report('imported')"
IMPORT_FAIRSEQ = "import fairseq; report('imported')"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="mutable dataclass defaults are rejected from Python 3.11 on")
@pytest.mark.parametrize("code", [IMPORT_HYDRA, IMPORT_FAIRSEQ], ids=["hydra", "fairseq"])
def test_config_defaults_fail_without_patch(run_python, code):
    outcome, stderr = run_python(code, without=["allow_config_defaults"])
    assert outcome is None
    assert "use default_factory" in stderr


CONFIG_DEFAULTS = """
import dataclasses, hydra
from fairseq.dataclass import FairseqDataclass
from fairseq.dataclass.configs import FairseqConfig, CommonConfig

@dataclasses.dataclass
class Mine(FairseqDataclass):
    common: CommonConfig = CommonConfig(seed=7)

@dataclasses.dataclass
class Other:
    x: int = 0

try:
    @dataclasses.dataclass
    class Wrong:
        other: Other = Other()
    others = "accepted"
except ValueError:
    others = "rejected"

report([type(FairseqConfig.__dataclass_fields__["common"].default).__name__, Mine().common.seed, others])
"""


def test_config_defaults_of_fairseq_and_subclasses_are_accepted(run_python):
    outcome, stderr = run_python(CONFIG_DEFAULTS)
    others = "rejected" if sys.version_info >= (3, 11) else "accepted"
    assert outcome == ["CommonConfig", 7, others], stderr


OPTIONS = """
import dataclasses, inspect
before = inspect.signature(dataclasses.dataclass), dataclasses.dataclass.__kwdefaults__
import hydra
after = inspect.signature(dataclasses.dataclass), dataclasses.dataclass.__kwdefaults__

@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    x: int = 0

report([before == after, hash(Point(x=1)) == hash(Point(x=1)), Point(x=1) == Point(x=1)])
"""


def test_dataclass_keeps_its_signature_and_options(run_python):
    outcome, stderr = run_python(OPTIONS)
    assert outcome == [True, True, True], stderr


IMPORT_PARSER = "from hydra.grammar.gen.OverrideLexer import OverrideLexer; report('imported')"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="typing.io is there up to Python 3.12")
def test_antlr_misses_typing_io_without_the_patch(run_python):
    outcome, stderr = run_python(IMPORT_PARSER, without=["restore_typing_io"])
    assert outcome is None
    assert "typing.io" in stderr


def test_antlr_imports(run_python):
    outcome, stderr = run_python(IMPORT_PARSER)
    assert outcome == "imported", stderr


JOB = """
def job():
    raise LookupError("the error of the job")

def run_job():
    job()
"""


def failing_job(folder):
    (folder / "sample_job.py").write_text(JOB)
    return f"""
    sys.path.insert(0, {str(folder)!r})
    from hydra._internal.utils import run_and_report
    from sample_job import run_job
    try:
        run_and_report(run_job)
    except SystemExit as end:
        report(end.code)
    """


def test_hydra_hides_job_error_without_patch(run_python, tmp_path):
    outcome, stderr = run_python(failing_job(tmp_path), without=["fix_hydra_error_report"])
    assert outcome is None
    assert "TypeError: print_exception()" in stderr


def test_hydra_reports_job_error(run_python, tmp_path):
    outcome, stderr = run_python(failing_job(tmp_path))
    assert outcome == 1, stderr
    assert "LookupError: the error of the job" in stderr
    assert "TypeError" not in stderr


SCAN_PLUGINS = """
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
report([plugin.__name__ for plugin in Plugins.instance().discover(Launcher)])
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="finders have find_module up to Python 3.11")
def test_hydra_finds_no_plugins_without_patch(run_python):
    outcome, stderr = run_python(SCAN_PLUGINS, without=["fix_hydra_plugin_scan"])
    assert outcome is None or "BasicLauncher" not in outcome


def test_hydra_finds_its_plugins(run_python):
    outcome, stderr = run_python(SCAN_PLUGINS)
    assert "BasicLauncher" in (outcome or []), stderr
