"""Measurements of speed and memory; README.md has the commands and what they gave."""

import sam_lungs  # noqa: F401  checks Python and its packages, before the imports of the modules
