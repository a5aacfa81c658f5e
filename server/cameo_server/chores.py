"""What goes wrong in a chore that is tried again by itself: said once, not at every try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cameo_protocol.errors import OperatorError

# The SuperLink is being restarted by its supervisor, which says so itself.
PASSING = "superlink-unreachable"


@dataclass
class Chore:
    """A chore of a long-running process. say: told each new trouble in one line."""

    say: Callable[[str], None]
    _last: str = ""

    @contextmanager
    def tried(self) -> Iterator[None]:
        """One try. An `OperatorError` ends it and is said when the last try did not end with the same one."""
        trouble = ""
        try:
            yield
        except OperatorError as error:
            trouble = error.code
            if trouble not in (PASSING, self._last):
                self.say(f"{error.code}: {error.what}; next: {error.do}")
        self._last = trouble
