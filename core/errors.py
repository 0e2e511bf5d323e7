"""The tree of errors, sorted by what the caller can do about them.

Errors know no HTTP; `api/http/errors.py` maps them. Between programs an error travels as code, message and fields.
"""


class CellplaneError(Exception):
    """An error that somebody may act upon.

    Args:
        message: one readable sentence for the person who asked.
        fields: what a program may want to know (names the field, the server, the cell …); plain JSON values.
    """

    def __init__(self, message: str, **fields: object) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields

    @property
    def code(self) -> str:
        """The name under which this error travels."""
        return type(self).__name__


class Invalid(CellplaneError):
    """The request itself is wrong; asking again will not help. `field` names what is wrong."""


class TooExpensive(Invalid):
    """What was asked costs more than one question may; whoever was asked is well. `field` names what makes it so
    dear."""


class NotFound(CellplaneError):
    """No such thing, or not for this caller."""


class Conflict(CellplaneError):
    """The state of things does not allow it."""


class Busy(Conflict):
    """Another operation is under way on the same thing."""


class Locked(Conflict):
    """The server is locked."""


class WrongState(Conflict):
    """The thing is in a state in which this is not allowed; the message names the state."""


class Unreadable(Conflict):
    """The record of the thing holds what no record can hold: nothing can be done with it until somebody mends it."""


class Forbidden(CellplaneError):
    """The caller may not do this."""


class OverQuota(Forbidden):
    """The project has used up what it may use; `quota` names the resource."""


class Unavailable(CellplaneError):
    """A part that is needed did not answer in time; the work may or may not have been done."""


class OverShare(Unavailable):
    """The project has as many requests under way as one project may have; others are served."""


class NoTurn(Unavailable):
    """What was asked waited too long behind others; whoever was to be asked is well."""


class Broken(CellplaneError):
    """Something is wrong on our side and the caller can do nothing about it."""


_BY_CODE = {
    kind.__name__: kind
    for kind in (
        CellplaneError,
        Invalid,
        TooExpensive,
        NotFound,
        Conflict,
        Busy,
        Locked,
        WrongState,
        Unreadable,
        Forbidden,
        OverQuota,
        Unavailable,
        OverShare,
        NoTurn,
        Broken,
    )
}


def from_fields(code: str, message: str, fields: dict[str, object] | None = None) -> CellplaneError:
    """The error that another program sent; an unknown code (a newer program) becomes `Broken`."""
    error = _BY_CODE.get(code, Broken)(message)
    error.fields = dict(fields or {})  # not as keyword arguments: their names are the sender's choice
    return error
