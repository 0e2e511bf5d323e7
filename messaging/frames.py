"""Reads frames so that no sender's properties can break the connection of who receives them."""

import struct
from collections.abc import Callable
from typing import Any

import amqp
import amqp.method_framing

_HEADER = 2
_CLASS_AND_SIZE = struct.Struct(">HHQ")
_NO_PROPERTIES = b"\0\0"

Frame = tuple[int, int, Any]


def frame_handler(connection: amqp.Connection, callback: Callable[..., None]) -> Callable[[Frame], bool]:
    """As `amqp.method_framing.frame_handler`, but a message whose properties cannot be decoded comes without any.

    py-amqp raises in the middle of the frame: for text that is no UTF-8, tables nested too deep, times out of range,
    unknown types. The connection would be lost, and the message would come again with the next one.
    """
    on_frame = amqp.method_framing.frame_handler(connection, callback)

    def on_any_frame(frame: Frame) -> bool:
        kind, channel, content = frame
        return bool(on_frame((kind, channel, _readable(content)) if kind == _HEADER else frame))

    return on_any_frame


def _readable(header: Any) -> Any:
    try:
        amqp.basic_message.Message().inbound_header(header)
    except Exception:  # Whatever it is, the message shall come.
        return bytes(header[: _CLASS_AND_SIZE.size]) + _NO_PROPERTIES
    return header
