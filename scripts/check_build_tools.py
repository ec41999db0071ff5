"""Exit with one sentence if this interpreter cannot build fairseq from source.

The interpreter that creates the environment runs this file, so it must stay readable for Python 3.6 and newer.
"""

import os
import shlex
import shutil
import sys
import sysconfig

HINT = (
    "on Debian and Ubuntu install g++ and python3-dev, on Fedora gcc-c++ and python3-devel, "
    "on macOS run xcode-select --install."
)


def missing_compiler():
    """The name of the C or C++ compiler that this Python calls if it is missing, else None."""
    for variable in ("CC", "CXX"):
        command = os.environ.get(variable) or sysconfig.get_config_var(variable) or ""
        words = shlex.split(command)
        if words and shutil.which(words[0]) is None:
            return words[0]
    return None


def missing_header():
    """The expected path of this Python's header Python.h if it is missing, else None."""
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    return None if os.path.isfile(header) else header


def main():
    compiler, header = missing_compiler(), missing_header()
    if compiler:
        sys.exit(f"setup: fairseq is built from source, and the compiler {compiler} is missing: {HINT}")
    if header:
        sys.exit(f"setup: fairseq is built from source, and Python's headers ({header}) are missing: {HINT}")


if __name__ == "__main__":
    main()
