"""The console script `icecube2nd`: commands that call functions and add nothing.

Nothing but the command line's own libraries is imported before a command runs, so
that help is there at once.
"""

from __future__ import annotations

import sys
import warnings


def main() -> None:
    """Run the command line; what a user can mend ends in one line, not in a trace."""
    try:
        from graphnet_icecube2nd.commands import app
    except ImportError as error:
        if (error.name or "").split(".")[0] not in ("typer", "rich"):
            raise
        sys.exit(
            f"the command line needs {error.name}: pip install graphnet-icecube2nd[cli]"
        )
    # Warnings of this package and others without the line of code that they come from.
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        app(prog_name="icecube2nd")
    except (ValueError, OSError, ImportError) as error:
        if "--debug" in sys.argv:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
