"""Package of bridle_fairseq and fairseq_compat; the one thing pyproject.toml cannot say is where the .pth file goes."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py as _build_py

HERE = Path(__file__).resolve().parent
PTH = "fairseq_compat.pth"


class build_py(_build_py):
    """Puts fairseq_compat.pth at the top of the wheel, so into site-packages, for normal and for editable installs."""

    def _pth_folder(self):
        if getattr(self, "editable_mode", False):
            return self.distribution.get_command_obj("install").install_purelib  # the editable wheel, not yet zipped
        return self.build_lib

    def run(self):
        super().run()
        folder = self._pth_folder()
        if folder:
            self.mkpath(folder)
            self.copy_file(str(Path("fairseq_compat") / PTH), os.path.join(folder, PTH), preserve_mode=0)


def version():
    text = (HERE / "bridle_fairseq" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def readme():
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


TEST = ["pytest>=8", "pytest-xdist>=3.5", "torchaudio>=2.6", "matplotlib>=3.7"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"]
VIDEO = ["av>=17.1"]
IMAGES = ["torchvision>=0.21"]
UNITS = ["sentencepiece>=0.2", "torchaudio>=2.6", "matplotlib>=3.7"]
SPEECH = ["jiwer>=3.0", "sentencepiece>=0.2"]
LINT = ["ruff>=0.12", "mypy>=1.10"]

setup(
    name="bridle_fairseq",
    version=version(),
    description="BRIDLE: self-supervised pretraining with residual-quantized codes, for stock fairseq",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.14",
    # package_dir makes an editable install a plain path entry, which type checkers and editors follow.
    package_dir={"": "."},
    packages=find_packages(include=["bridle_fairseq", "bridle_fairseq.*", "fairseq_compat"]),
    install_requires=[
        "fairseq==0.12.2",
        "torch>=2.6,<2.15",
        "numpy>=1.24",
        "pillow>=10.1",
        "soundfile>=0.12.1",
        "soxr>=0.3.7",
        "safetensors>=0.4.3",
        "scikit-learn>=1.3",
        "tensorboardX>=2.6",
        "tqdm>=4.64",
    ],
    extras_require={
        "onnx": ONNX,
        "images": IMAGES,
        "video": VIDEO,
        "units": UNITS,
        "speech": SPEECH,
        "similar": ["faiss-cpu>=1.8"],
        "test": TEST,
        "lint": LINT,
        "dev": TEST + LINT + ONNX + IMAGES + VIDEO + UNITS + SPEECH,
    },
    entry_points={"console_scripts": ["bridle = bridle_fairseq.cli.main:main"]},
    cmdclass={"build_py": build_py},
)
