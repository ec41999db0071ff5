"""Package of bridle_fairseq and fairseq_compat. pyproject.toml cannot say where its data files go."""

import os
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py as _build_py

HERE = Path(__file__).resolve().parent
PTH = "fairseq_compat.pth"


class build_py(_build_py):
    """Puts fairseq_compat.pth at the top of the wheel, so into site-packages, and data files into the package.

    An editable install has the .pth file, too; it finds them in the checkout.
    """

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
        if getattr(self, "editable_mode", False):
            return
        weights = [path for path in Path("weights").glob("*/*") if (path.parent / "config.json").exists()]
        pictures = [Path("docs") / "method.svg"]  # on the demo's page
        for path in sorted([*Path("examples").glob("*/config/**/*.yaml"), *weights, *pictures]):
            target = Path(self.build_lib, "bridle_fairseq", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target), preserve_mode=0)


def version():
    text = (HERE / "bridle_fairseq" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE).group(1)


def readme():
    path = HERE / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


TRAIN = [
    # Python 3.14 has no use for it: fairseq runs on 3.10 to 3.13 here
    "fairseq==0.12.2; python_version < '3.14'",
    "pillow>=10.1",
    "scikit-learn>=1.3",
    "tensorboardX>=2.6",
    "tqdm>=4.64",
]
IMAGES = ["pillow>=10.1", "torchvision>=0.21"]
VIDEO = ["av>=17.1", "pillow>=10.1"]
SPEECH = ["jiwer>=3.0", "sentencepiece>=0.2"]
UNITS = ["sentencepiece>=0.2", "torchaudio>=2.6", "matplotlib>=3.7"]
ONNX = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.3"]
PARQUET = ["pyarrow>=15"]
HUB = ["huggingface-hub>=0.23,<3"]
TRANSFORMERS = ["transformers>=4.57,<6", "pillow>=10.1"]
COMPLETION = ["shtab>=1.7"]
TEST = ["pytest>=8", "pytest-xdist>=3.5", "torchaudio>=2.6", "matplotlib>=3.7"]
LINT = ["ruff>=0.12", "mypy>=1.10"]
DOCS = ["sphinx>=8.1,<10", "furo>=2024.8.6", "myst-parser>=4,<6"]  # scripts/docs.sh reads this line

setup(
    name="bridle_fairseq",
    version=version(),
    description="BRIDLE: self-supervised pretraining with residual-quantized codes, for stock fairseq",
    long_description=readme(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10,<3.15",
    # package_dir makes an editable install a plain path entry, which type checkers and editors follow.
    package_dir={"": "."},
    packages=find_packages(include=["bridle_fairseq", "bridle_fairseq.*", "fairseq_compat"]),
    # The light install: exported models and the commands that use them. Training needs the extra "train".
    install_requires=[
        "torch>=2.6,<2.15",
        "numpy>=1.24",
        "safetensors>=0.4.3",
        "soundfile>=0.12.1",
        "soxr>=0.3.7",  # resamples as in training
    ],
    extras_require={
        "train": TRAIN,
        "images": IMAGES,
        "video": VIDEO,
        "speech": SPEECH,
        "units": UNITS,
        "onnx": ONNX,
        "parquet": PARQUET,
        "hub": HUB,
        "transformers": TRANSFORMERS,
        "similar": ["faiss-cpu>=1.8"],
        "completion": COMPLETION,
        "test": TEST,
        "lint": LINT,
        "docs": DOCS,
        "dev": TRAIN + IMAGES + VIDEO + SPEECH + UNITS + ONNX + PARQUET + HUB + TRANSFORMERS + COMPLETION + TEST + LINT,
    },
    entry_points={"console_scripts": ["bridle = bridle_fairseq.cli.main:main"]},
    cmdclass={"build_py": build_py},
)
