"""The command line: one short file per verb, which parses, calls one function and prints."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line; errors are one line on stderr and exit code 2, with a traceback only under `--debug`."""
    from vidprune.cli.app import app
    from vidprune.errors import VidpruneError

    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what the terminal's encoding does not
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = [a for a in sys.argv[1:] if a != "--debug"]  # accepted anywhere, before or after the verb
    debug = len(arguments) != len(sys.argv) - 1
    try:
        app(arguments)
    except VidpruneError as error:
        if debug:
            raise
        _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _fail(f"internal error: {type(error).__name__}: {' '.join(str(error).split())} (run again with --debug)", 1)


def _fail(message: str, code: int) -> None:
    print(f"vidprune: {message}", file=sys.stderr)
    sys.exit(code)
