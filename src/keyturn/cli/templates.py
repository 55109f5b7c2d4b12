"""`keyturn template`: text with references to held secrets, filled in."""
from __future__ import annotations
import click
@click.group()
def template() -> None:
    """Fill held secrets into text."""
