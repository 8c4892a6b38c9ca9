"""`veduta submit`: the package that a test server takes."""

import typer

app = typer.Typer()
