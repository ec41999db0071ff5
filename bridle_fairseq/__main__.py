"""``python -m bridle_fairseq`` is the command ``bridle``."""

import sys

from bridle_fairseq.cli.main import main

sys.exit(main())
