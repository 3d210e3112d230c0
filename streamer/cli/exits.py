"""Exit codes, the same for every command; sysexits.h names the last two."""

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2  # argparse ends with it by itself
SINK_UNAVAILABLE: Final = 69  # EX_UNAVAILABLE, under --require-sinks
BAD_CONFIGURATION: Final = 78  # EX_CONFIG
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells say it
