"""`python -m batchinfer`."""

import sys

from batchinfer.cli import main

sys.exit(main())
