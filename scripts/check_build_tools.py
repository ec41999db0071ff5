"""Exit with one sentence where fairseq, which is built from source, could not be built by this interpreter.

Run by the interpreter that will make the environment, so any Python from 3.6 on must be able to read this file.
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
    """The name of a C or C++ compiler that this Python would call and that is not there, or None."""
    for variable in ("CC", "CXX"):
        command = os.environ.get(variable) or sysconfig.get_config_var(variable) or ""
        words = shlex.split(command)
        if words and shutil.which(words[0]) is None:
            return words[0]
    return None


def missing_header():
    """The path where this Python's header Python.h should be and is not, or None."""
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
