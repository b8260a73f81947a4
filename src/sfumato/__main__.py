"""`python -m sfumato`, the form that launchers of several processes take: `accelerate launch -m sfumato train ...`."""

from __future__ import annotations

from sfumato.cli import main

if __name__ == "__main__":
    main()
