"""The way in: the command `sfumato`, and `python -m sfumato`, the form that launchers take: `accelerate launch -m sfumato train ...`."""

from __future__ import annotations

import sys

from sfumato.stopping import TOLD, interrupting


def main(arguments: list[str] | None = None) -> None:
    """Run a command of `sfumato.cli`; to be asked to stop is answered with a line and 130 or 143, while modules are loaded as well."""
    with interrupting() as asked:
        try:
            from sfumato.cli import main as run

            run(arguments)
        except KeyboardInterrupt:
            if "--debug" in (sys.argv if arguments is None else arguments):
                raise
            print(f"\n{TOLD}", file=sys.stderr)
            sys.exit(asked.code)


if __name__ == "__main__":
    main()
