"""`python -m vlmteach`: the command `vlmteach`."""

import sys

from vlmteach.cli import main

sys.exit(main())
