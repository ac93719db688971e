"""Imported by the server of `faults` before it forks: what every script computes once."""

from sam_lungs.study.run_record import code_sha256

code_sha256()
