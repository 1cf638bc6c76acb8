"""`python -m pyro_latents` is `pyro-latents`."""

import sys

from pyro_latents.cli import main

sys.exit(main())
