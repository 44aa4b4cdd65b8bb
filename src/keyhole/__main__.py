"""``python -m keyhole``."""

import sys

from keyhole.cli import main

if __name__ == "__main__":
    sys.exit(main())
