"""``python -m lora_core`` is ``loom``."""

import sys

from .cli import main

sys.exit(main())
