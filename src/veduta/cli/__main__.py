"""`python -m veduta.cli` is `veduta`."""

from veduta.cli import app

app()
