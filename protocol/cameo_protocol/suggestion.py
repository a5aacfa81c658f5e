"""The commands that our own texts name, made such that they work when pasted: with the folders of this call. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

import click

_NAMED = re.compile(r"(?<![\w/.-])(cameo(?:-node)?)((?: [a-z][a-z-]*)+)")
# Where the words of a command in a sentence end.
_END = re.compile(r"[;,)`\n]| cameo")
# A command with one of these is somebody else's, or says already where it acts.
_PLACED = re.compile(r" --(home|profile|help)\b")
# Text before a command that is for another machine, as in "on the coordinator's machine: cameo coordinator start".
_ELSEWHERE = " machine: "


def completed(text: str, program: str, root: click.Command, given: Mapping[str, str]) -> str:
    """The text, with the given options put after every command of `program` in it that takes them.

    root: the program's tree of commands. given: option -> value, as {"--home": "/srv/cameo"}. A command of the other
    program runs on another machine and is left alone; so is one after "… machine: ", and one that names its folder.

    >>> @click.command()
    ... @click.option("--home")
    ... def start(home): ...
    >>> root = click.Group("cameo-node", {"start": start})
    >>> completed("Next: cameo-node start; there: cameo site list", "cameo-node", root, {"--home": "/a b"})
    "Next: cameo-node start --home '/a b'; there: cameo site list"
    """

    def placed(match: re.Match[str]) -> str:
        command, end = _called(root, match)
        elsewhere = match[1] != program or text[: match.start()].endswith(_ELSEWHERE)
        rest = _END.split(text[end:], maxsplit=1)[0]
        if elsewhere or isinstance(command, click.Group) or _PLACED.search(rest):
            return match[0]
        takes = {name for parameter in command.params for name in parameter.opts}
        options = "".join(f" {name} {shlex.quote(value)}" for name, value in given.items() if name in takes)
        return text[match.start() : end] + options + text[end : match.end()]

    return _NAMED.sub(placed, text) if given else text


def _called(root: click.Command, match: re.Match[str]) -> tuple[click.Command, int]:
    """The command that the words name, and where its name ends in the text; words after it are its arguments."""
    command, end = root, match.end(1)
    for word in re.finditer(r" ([a-z-]+)", match[2]):
        if not isinstance(command, click.Group) or word[1] not in command.commands:
            break
        command, end = command.commands[word[1]], match.start(2) + word.end()
    return command, end
