"""`veduta compare`: two sources of predictions, image by image."""

import typer

app = typer.Typer()
