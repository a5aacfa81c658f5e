"""Our handler as a Flower ClientApp: query messages in, packets out. Exceptions stay here; only a code leaves."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from cameo_client.flower.records import from_record, to_record
from cameo_protocol.errors import CameoError
from cameo_protocol.logs import failure, get_logger
from cameo_protocol.packet import Packet

log = get_logger(__name__)
UNEXPECTED = "node-failed"


def make_client_app(handle: Callable[[Packet], Packet]) -> ClientApp:
    """A ClientApp that answers "query" messages by `handle`.

    handle: pure in Flower's eyes; it may raise. Whatever it raises, the reply carries a stable code and no text: the
    code of one of our errors, else "node-failed". Nothing is kept in Flower's `Context`.
    """
    app = ClientApp()

    @app.query()
    def answer(message: Message, _context: Context) -> Message:
        try:
            return Message(to_record(handle(from_record(message.content))), reply_to=message)
        except CameoError as error:
            code = error.code
        except Exception as error:
            code = UNEXPECTED
            # Where, never what: an exception's text may hold a patient's value.
            log.error("handler-failed", **failure(error))
        log.warning("answered-with-code", code=code)
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, code), reply_to=message)

    return app
