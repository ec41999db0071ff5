"""Patch needed because of pytest."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from fairseq_compat import WATCHED


def exclude_watched_modules(module: ModuleType) -> None:
    """Needed on every version of pytest: its own finder loads hydra and bypasses the patches of this package.

    hydra-core 1.0.7 ships a pytest plugin, so pytest rewrites the assertions in all of hydra, with a finder that runs
    before ours. The patch makes that finder ignore the watched modules.
    """
    find_spec = module.AssertionRewritingHook.find_spec

    @functools.wraps(find_spec)
    def find_spec_unless_watched(self: Any, name: str, *args: Any, **options: Any) -> Any:
        return None if name in WATCHED else find_spec(self, name, *args, **options)

    module.AssertionRewritingHook.find_spec = find_spec_unless_watched
