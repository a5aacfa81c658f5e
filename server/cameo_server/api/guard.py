"""One door for every call: who calls is found and checked, and our errors leave as refusals, never as traces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from cryptography import x509

from cameo_protocol.errors import Bug, CameoError, ExitCode, OperatorError
from cameo_protocol.logs import failure, get_logger
from cameo_protocol.operator_api.refusal import to_metadata
from cameo_server.api.access import HEALTH, JOINING, require
from cameo_server.pki import Holder

log = get_logger(__name__)

_STATUS = {
    ExitCode.USAGE: grpc.StatusCode.INVALID_ARGUMENT,
    ExitCode.AUTH: grpc.StatusCode.UNAUTHENTICATED,
    ExitCode.POLICY: grpc.StatusCode.PERMISSION_DENIED,
}


class Guard(grpc.ServerInterceptor):
    """Wraps every handler of a server.

    identify: the holder of a verified certificate, or a refusal; None on a server where callers have none: there they
    are told what is theirs to mend (`JOINING`), and of the coordinator's own troubles only that there are some.
    """

    def __init__(self, identify: Callable[[x509.Certificate], Holder] | None) -> None:
        self._identify = identify

    def intercept_service(
        self, continuation: Callable[[Any], grpc.RpcMethodHandler[Any, Any] | None], handler_call_details: Any
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the handler's function by a guarded one of the same kind."""
        handler = continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method == f"{HEALTH}Watch":  # a watch would hold a thread for as long as anybody likes
            return None
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(method, handler.unary_unary), **codec)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(self._stream(method, handler.unary_stream), **codec)
        return None

    def _unary(self, method: str, call: Callable[[Any, Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                self._admit(method, context)
                return call(request, context)
            except Exception as error:
                return self._refuse(context, error)

        return guarded

    def _stream(self, method: str, call: Callable[[Any, Any], Any]) -> Callable[[Any, grpc.ServicerContext], Any]:
        def guarded(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                self._admit(method, context)
                for item in call(request, context):
                    self._admit(method, context)  # a stream may outlast its caller's certificate
                    yield item
            except Exception as error:
                self._refuse(context, error)

        return guarded

    def _admit(self, method: str, context: grpc.ServicerContext) -> None:
        if self._identify is None:
            return
        require(method, self._identify(peer_certificate(context)))

    def _refuse(self, context: grpc.ServicerContext, error: Exception) -> Any:
        if not isinstance(error, CameoError):
            log.error("call-failed", **failure(error))
            error = Bug("operator-api", what="the coordinator failed; its log says where")
        elif self._identify is None and error.code not in JOINING:
            log.error("call-failed", code=error.code)
            error = OperatorError(
                "coordinator-troubled",
                what="the coordinator cannot do this at present; its log says why",
                do="call the coordinator; then run the command again",
                exit=ExitCode.PEER,
            )
        code = grpc.StatusCode.INTERNAL if isinstance(error, Bug) else _STATUS.get(error.exit_code)
        context.set_trailing_metadata(to_metadata(error))
        context.abort(code or grpc.StatusCode.FAILED_PRECONDITION, error.code)


def peer_certificate(context: grpc.ServicerContext) -> x509.Certificate:
    """The certificate of a mutual TLS handshake that has succeeded."""
    found: Mapping[str, Any] = context.auth_context()
    pem: list[bytes] = list(found.get("x509_pem_cert", []))
    if len(pem) != 1:
        raise OperatorError(
            "certificate-missing", what="a call without a certificate", do="join first", exit=ExitCode.AUTH
        )
    return x509.load_pem_x509_certificate(pem[0])
