"""How a group of commands lists them: what each does, in whole words."""

from __future__ import annotations

from typing import Final

import click

_SENTENCE_MAX: Final = 72


class Commands(click.Group):
    """A group whose help says of each command what its own does first, where click would cut it off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List every command with what it does; lines that are too long for the terminal go on below."""
        named = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, _first_words(command)) for name, command in named if command is not None and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _first_words(command: click.Command) -> str:
    paragraph = (command.help or "").partition("\n\n")[0]
    sentence = " ".join(paragraph.split()).partition(". ")[0].rstrip(".")
    return (sentence if len(sentence) <= _SENTENCE_MAX else sentence.partition("; ")[0]) + "."
