"""The command ``bridle``. Each subcommand is a module of this folder: it parses, calls the library, and prints."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from bridle_fairseq import __version__
from bridle_fairseq.utils.process import run_command

# A module has HELP: str, add_arguments(parser) and run(args) -> int. Slow imports are inside run(), so --help is fast.
# With TAKES_OVERRIDES = True, what follows "--" on the command line is in args.overrides. With TAKES_SETTINGS = True,
# so are arguments key=value anywhere, which argparse does not take after an option.
COMMANDS = (
    "manifest",
    "stats",
    "train",
    "tokenize",
    "units",
    "features",
    "embed",
    "similar",
    "probe",
    "crossval",
    "evaluate",
    "predict",
    "export",
    "report",
    "bench-loader",
    "scaling",
    "demo",
    "completion",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; ``args.run`` is the function of the chosen one."""
    parser = argparse.ArgumentParser(
        prog="bridle",
        description="Pretrain BRIDLE models, prepare data, evaluate, embed and export.",
    )
    parser.add_argument("--version", action="version", version=f"bridle {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = _module(name)
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"bridle_fairseq.cli.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return the exit code, as :func:`.process.run_command` does."""
    argv, overrides = _split_overrides(list(sys.argv[1:] if argv is None else argv))

    def command() -> int:
        if not argv:
            build_parser().print_help()
            return 0
        parser = build_parser()
        args, rest = parser.parse_known_args(argv)
        takes_settings = getattr(_module(argv[0]), "TAKES_SETTINGS", False) if rest else False
        unknown = [text for text in rest if text.startswith("-") or not takes_settings]
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        args.overrides = [*getattr(args, "overrides", ()), *rest, *overrides]
        return args.run(args)

    return run_command("bridle", command)


def _split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """The command line, and the overrides after "--" if the subcommand takes them."""
    if "--" not in argv or argv[0] not in COMMANDS:
        return argv, []
    if not getattr(_module(argv[0]), "TAKES_OVERRIDES", False):
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]
