"""`python -m vop`, and `accelerate launch -m vop`."""

import sys

from vop.cli import main

sys.exit(main())
