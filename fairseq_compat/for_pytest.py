"""Patch needed because of pytest."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from fairseq_compat import WATCHED


def leave_watched_modules_alone(module: ModuleType) -> None:
    """Needed on every version of pytest: it loads hydra by a finder of its own, past the patches of this package.

    hydra-core 1.0.7 ships a pytest plugin; pytest therefore rewrites the assertions in all of hydra, and its finder
    stands before ours. It is made to pass the watched modules on.
    """
    find_spec = module.AssertionRewritingHook.find_spec

    @functools.wraps(find_spec)
    def find_spec_of_others(self: Any, name: str, *args: Any, **options: Any) -> Any:
        return None if name in WATCHED else find_spec(self, name, *args, **options)

    module.AssertionRewritingHook.find_spec = find_spec_of_others
