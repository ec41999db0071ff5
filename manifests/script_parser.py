"""The arguments that all scripts of this folder have."""

from __future__ import annotations

import argparse


def script_parser(description: str, random_split: bool = True) -> argparse.ArgumentParser:
    """Parser with the arguments of all scripts in ``manifests/``.

    Args:
        description: of the script.
        random_split: add the options of a random validation split.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="DIR", help="folder with the files, or a stored .zip or .tar of them")
    parser.add_argument("--dest", required=True, metavar="DIR", help="folder for the manifests; made if missing")
    parser.add_argument(
        "--max-skipped",
        type=float,
        default=0.01,
        metavar="SHARE",
        help="abort if more than this fraction of the files, and more than 10, is unusable (0.01)",
    )
    if random_split:
        parser.add_argument("--valid-percent", type=float, default=0.05, metavar="SHARE", help="for validation (0.05)")
        parser.add_argument("--seed", type=int, default=42, help="of the random split (42)")
    return parser
