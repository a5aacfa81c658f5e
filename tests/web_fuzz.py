"""Whatever is sent to a page, it answers as a page does: never with a server error. Driven by its own schema."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import httpx
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode

EXAMPLES = 8


def fuzz(app: FastAPI, client: httpx.Client) -> Counter[int]:
    """Send made-up requests, well-formed and not, to every operation but log-out; how often each status came."""
    schema = schemathesis.openapi.from_dict(app.openapi())
    seen: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = cast(Any, found).ok()
        if operation.path != "/logout":
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                _fuzz_one(operation, mode, client, seen)
    return seen


def _fuzz_one(operation: Any, mode: GenerationMode, client: httpx.Client, seen: Counter[int]) -> None:
    try:
        strategy = operation.as_strategy(generation_mode=mode)
    except schemathesis.errors.SchemathesisError:
        return  # nothing can be wrong with an operation that takes nothing

    @given(case=strategy)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def send(case: Any) -> None:
        request = case.as_transport_kwargs(base_url=str(client.base_url).rstrip("/"))
        kept = {name: request[name] for name in ("params", "data", "json", "files") if request.get(name)}
        headers = {k: str(v) for k, v in (request.get("headers") or {}).items() if k.lower() == "content-type"}
        try:
            answer = client.request(request["method"], request["url"], headers=headers, **kept)
        except (httpx.InvalidURL, UnicodeEncodeError):
            return  # no such request can be sent
        assert answer.status_code < 500, (request, answer.text[:400])
        assert "content-security-policy" in answer.headers
        seen[answer.status_code] += 1

    try:
        send()
    except Exception as error:
        if type(error).__name__ != "Unsatisfiable":
            raise
