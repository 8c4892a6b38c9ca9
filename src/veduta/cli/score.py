"""`veduta score` and `veduta audit`: scores of what other programs predicted or printed."""

import typer

app = typer.Typer()
