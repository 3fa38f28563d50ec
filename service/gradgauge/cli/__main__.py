"""`python -m gradgauge.cli`: the commands where no client package is installed."""

import sys

from gradgauge.cli import main

sys.exit(main(sys.argv[1:]))
