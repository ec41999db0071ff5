"""``bridle completion``: what a shell needs to complete the commands and options of ``bridle``."""

from __future__ import annotations

import argparse

HELP = 'print the completion script of a shell: eval "$(bridle completion bash)" in ~/.bashrc'
SHELLS = ("bash", "zsh", "tcsh")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``bridle completion``."""
    parser.add_argument("shell", choices=SHELLS, help="your shell")


def run(args: argparse.Namespace) -> int:
    """Print the script; arguments without choices are completed as files."""
    import shtab

    from bridle_fairseq.cli.main import build_parser

    parser = build_parser()
    _complete_files(parser)
    print(shtab.complete(parser, args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                _complete_files(subparser)
        elif action.nargs != 0 and not action.choices and action.type is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
