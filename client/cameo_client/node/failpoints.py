"""Named points at which a test may kill this process, by environment variable; the way of etcd's gofail.

CAMEO_FAILPOINTS="cleveland:upload-charged@3" kills hospital cleveland with SIGKILL the third time it reaches the
point "upload-charged". Several are separated by commas. Without the variable a point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "CAMEO_FAILPOINTS"


class Failpoints:
    """The points at which one site dies. counts: point -> how many passes are left until then."""

    def __init__(self, site: str, spec: str) -> None:
        self._left: dict[str, int] = {}
        for item in filter(None, spec.split(",")):
            where, _, times = item.partition("@")
            name, _, point = where.partition(":")
            if name == site:
                self._left[point] = int(times or "1")

    @classmethod
    def from_environment(cls, site: str) -> Failpoints:
        """What the environment of this process asks for."""
        return cls(site, os.environ.get(VARIABLE, ""))

    def reach(self, point: str) -> None:
        """Pass a point, or end the process there without any clean-up."""
        left = self._left.get(point)
        if left is None:
            return
        if left <= 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left[point] = left - 1
