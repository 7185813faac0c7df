"""`python -m rayzero …`, the same as the command `rayzero …`: for Ray jobs and for checkouts that are not installed."""

from __future__ import annotations

from rayzero.services.cli.app import main

if __name__ == "__main__":
    main()
