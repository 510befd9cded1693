"""`python -m MedGenLib` is the command `medgen`."""

import sys

from MedGenLib.cli import main

sys.exit(main())
