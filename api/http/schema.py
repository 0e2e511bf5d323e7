"""What requests may hold: types, bodies and queries, built into validators once per microversion.

A type is a JSON schema and a conversion to the Python value that handlers want. Where either depends on
the microversion, the type holds properties with spans; nothing here is asked for a version while serving.

What a body costs is linear in its size, whatever it holds: every type has a greatest number, a schema's keywords are
looked at in the order of `_KEYWORDS` (the type, then how much there is of it, then what is inside), and the first error
ends it. Decision 0015.
"""

import ipaddress
import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import jsonschema
import jsonschema.validators
from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator

from api.http.versions import Microversion, Span
from core import errors
from objects.ids import as_kept, uuid_of

Schema: TypeAlias = dict[str, Any]
Convert: TypeAlias = Callable[[Any], Any]

MAX_INT = 0x7FFFFFFF
MAX_BIGINT = 0x7FFFFFFFFFFFFFFF
"""The greatest numbers of the databases' INTEGER and BIGINT."""
MAX_CHARACTERS = 65535
"""Of a text that has no limit of its own."""
MAX_ITEMS = 255
"""Of a list that has no limit of its own."""
MAX_PROPERTIES = 1000
"""Of an object whose keys the caller chooses, unless it has a limit of its own."""
STRICT_QUERIES_SINCE = "2.102"

NO_NAME = "A name must be printable characters, with no blanks at its ends."

_SHOWN_CHARACTERS = 200
# In this order a schema's keywords are looked at.
_KEYWORDS = (
    "type", "maxItems", "minItems", "maxProperties", "minProperties", "maxLength", "minLength", "maximum", "minimum",
    "required", "additionalProperties", "enum", "pattern", "format", "anyOf", "items", "properties",
    "patternProperties", "uniqueItems",
)  # fmt: skip
_TRUE = (True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")
_FALSE = (False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")


@dataclass(frozen=True, slots=True)
class Form:
    """A type at one microversion; ``convert`` is given only what the schema let through.

    A conversion may still refuse with a ValueError whose text says why.
    """

    schema: Schema
    convert: Convert | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", {key: self.schema[key] for key in sorted(self.schema, key=_KEYWORDS.index)})


@dataclass(frozen=True, slots=True)
class Type:
    """What a value may be, at any microversion."""

    at: Callable[[Microversion], Form]


@dataclass(frozen=True, slots=True)
class Property:
    """A property of an object in a request body; a name may have several rows with different spans."""

    name: str
    type: Type
    required: bool = False
    since: str = "2.1"
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Param:
    """A query parameter."""

    name: str
    type: Type
    since: str = "2.1"
    until: str | None = None
    once: bool = False


_QUOTED = reprlib.Repr()
_QUOTED.maxlevel, _QUOTED.maxlist, _QUOTED.maxdict, _QUOTED.maxstring, _QUOTED.maxother = (
    3,
    8,
    8,
    _SHOWN_CHARACTERS,
    _SHOWN_CHARACTERS,
)


# Types


def fixed(schema: Schema, convert: Convert | None = None) -> Type:
    """A type that is the same at every microversion."""
    form = Form(schema, convert)
    return Type(lambda version: form)


def text(minimum: int = 0, maximum: int = MAX_CHARACTERS, pattern: str | None = None) -> Type:
    """A string."""
    schema: Schema = {"type": "string", "minLength": minimum, "maxLength": maximum}
    if pattern is not None:
        schema["pattern"] = pattern
    return fixed(schema)


def name(maximum: int = 255, *, pattern: str | None = None) -> Type:
    """A printable string without blanks at its ends: what a thing is called, whatever the thing."""
    schema: Schema = {"type": "string", "minLength": 1, "maxLength": maximum, "format": "name"}
    return fixed(schema if pattern is None else {**schema, "pattern": pattern})


def description(maximum: int = 255) -> Type:
    """Printable text with line breaks, or null."""
    return fixed({"type": ["string", "null"], "maxLength": maximum, "format": "description"})


def choice(*values: Any) -> Type:
    """One of these values."""
    return fixed({"enum": list(values)})


def whole_number(minimum: int = -MAX_INT - 1, maximum: int = MAX_INT) -> Type:
    """An integer or a string that holds one; becomes an int."""
    pattern = r"^[0-9]+$" if minimum >= 0 else r"^-?[0-9]+$"
    schema: Schema = {
        "type": ["integer", "string"],
        "pattern": pattern,
        "maxLength": 20,
        "minimum": minimum,
        "maximum": maximum,
    }

    def convert(value: Any) -> int:
        number = int(value)
        if number < minimum:
            raise ValueError(f"{number} is less than the minimum of {minimum}")
        if number > maximum:
            raise ValueError(f"{number} is greater than the maximum of {maximum}")
        return number

    return fixed(schema, convert)


def nullable(inner: Type) -> Type:
    """The same, or null."""

    def at(version: Microversion) -> Form:
        form = inner.at(version)
        convert = form.convert
        or_null = None if convert is None else lambda value: None if value is None else convert(value)
        return Form({"anyOf": [{"type": "null"}, form.schema]}, or_null)

    return Type(at)


def either(*types: Type) -> Type:
    """Any of these; the first one that fits converts the value."""

    def at(version: Microversion) -> Form:
        forms = [each.at(version) for each in types]
        choices = [(_validator(form.schema), form.convert) for form in forms]

        def convert(value: Any) -> Any:
            for validator, converted in choices:
                if validator.is_valid(value):
                    return value if converted is None else converted(value)
            return value

        return Form({"anyOf": [form.schema for form in forms]}, convert)

    return Type(at)


def checked(inner: Type, check: Callable[[Any], None]) -> Type:
    """The same, where the check lets the converted value pass; it refuses with a ValueError."""

    def at(version: Microversion) -> Form:
        form = inner.at(version)

        def convert(value: Any) -> Any:
            converted = value if form.convert is None else form.convert(value)
            check(converted)
            return converted

        return Form(form.schema, convert)

    return Type(at)


def list_of(item: Type, *, minimum: int = 0, maximum: int = MAX_ITEMS, unique: bool = False) -> Type:
    """A list of such items."""

    def at(version: Microversion) -> Form:
        form = item.at(version)
        schema: Schema = {"type": "array", "items": form.schema, "minItems": minimum, "maxItems": maximum}
        if unique:
            schema["uniqueItems"] = True
        convert = form.convert
        return Form(schema, None if convert is None else lambda values: [convert(value) for value in values])

    return Type(at)


def set_of(item: Type, *, maximum: int) -> Type:
    """A list of such items, in which one that comes twice is there once; ``maximum`` counts them as they were sent."""

    def at(version: Microversion) -> Form:
        form = list_of(item, maximum=maximum).at(version)
        convert = form.convert
        return Form(form.schema, lambda values: list(dict.fromkeys(values if convert is None else convert(values))))

    return Type(at)


def map_of(value: Type, *, keys: str, minimum: int = 0, maximum: int = MAX_PROPERTIES) -> Type:
    """An object whose keys fit the pattern."""

    def at(version: Microversion) -> Form:
        form = value.at(version)
        schema: Schema = {
            "type": "object",
            "patternProperties": {keys: form.schema},
            "additionalProperties": False,
            "minProperties": minimum,
            "maxProperties": maximum,
        }
        convert = form.convert
        if convert is None:
            return Form(schema)
        return Form(schema, lambda values: {key: convert(inner) for key, inner in values.items()})

    return Type(at)


def structure(*properties: Property, closed: bool = True, minimum: int = 0, maximum: int = MAX_PROPERTIES) -> Type:
    """An object with these properties; ``closed`` ones have no others."""

    def at(version: Microversion) -> Form:
        present = [each for each in properties if Span.between(each.since, each.until).applies(version)]
        forms = {each.name: each.type.at(version) for each in present}
        schema: Schema = {
            "type": "object",
            "properties": {key: form.schema for key, form in forms.items()},
            "required": [each.name for each in present if each.required],
            "additionalProperties": not closed,
            "minProperties": minimum,
            "maxProperties": maximum,
        }
        return Form(schema, _converts_each({key: form.convert for key, form in forms.items()}))

    return Type(at)


def _converts_each(converts: Mapping[str, Convert | None]) -> Convert | None:
    needed = {key: convert for key, convert in converts.items() if convert is not None}
    if not needed:
        return None

    def convert_each(values: dict[str, Any]) -> dict[str, Any]:
        converted = dict(values)
        for key, convert in needed.items():
            if key in values:
                try:
                    converted[key] = convert(values[key])
                except ValueError as error:
                    raise _refusal(key, values[key], str(error)) from None
        return converted

    return convert_each


def _refusal(where: str, value: Any, why: str) -> errors.Invalid:
    return errors.Invalid(
        f"Invalid input for field/attribute {where}. Value: {_shown(value)}. {why}", field=where
    )


def _shown(value: Any) -> str:
    """The value as a message quotes it, which never costs more for being long, wide or deep."""
    return _cut(value if isinstance(value, str) else _QUOTED.repr(value), _SHOWN_CHARACTERS)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "..."


def _is_uuid(value: object) -> bool:
    if not isinstance(value, str):
        return True
    try:
        uuid_of(value)
    except ValueError:
        return False
    return True


def is_name(value: object) -> bool:
    """Whether it may be a `name`; what is no text is left to whoever asks for one."""
    return not isinstance(value, str) or (bool(value) and value == value.strip() and value.isprintable())


def _is_description(value: object) -> bool:
    return not isinstance(value, str) or all(each.isprintable() or each in "\n\r\t" for each in value)


def canonical_address(value: str) -> str:
    """The one form in which an address is kept and compared; what is no address stays as it is."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value


def _is_address(version: int) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        if not isinstance(value, str):
            return True
        try:
            # No address has a zone ("fe80::1%eth0") outside of the machine that names its links so.
            return ipaddress.ip_address(value).version == version and "%" not in value
        except ValueError:
            return False

    return check


def _format_checker() -> jsonschema.FormatChecker:
    checker = jsonschema.FormatChecker(formats=())
    checker.checkers = {
        "uuid": (_is_uuid, ()),
        "name": (is_name, ()),
        "description": (_is_description, ()),
        "ipv4": (_is_address(4), ()),
        "ipv6": (_is_address(6), ()),
    }
    return checker


_FORMATS = _format_checker()


def _any_of(
    validator: Any, branches: list[Schema], instance: Any, schema: Schema
) -> Iterator[jsonschema.ValidationError]:
    """The keyword anyOf, which ends a branch with its first error: the library's own lists all of them."""
    context = []
    for number, branch in enumerate(branches):
        error = next(validator.descend(instance, branch, schema_path=number), None)
        if error is None:
            return
        context.append(error)
    yield jsonschema.ValidationError(f"{_shown(instance)} is not valid under any of the given schemas", context=context)


_Validator: Callable[..., Validator] = jsonschema.validators.extend(  # type: ignore[no-untyped-call]
    jsonschema.Draft202012Validator, {"anyOf": _any_of}
)


def _validator(schema: Schema) -> Validator:
    return _Validator(schema, format_checker=_FORMATS)


NAME = name()
DESCRIPTION = description()
UUID = fixed({"type": "string", "maxLength": 64, "format": "uuid"}, uuid_of)
# Where an id that is no uuid is one that does not exist, and no bad request.
UUID_OR_UNKNOWN = fixed({"type": "string", "maxLength": 255}, as_kept)
TEXT = text()
STRING_1_255 = text(1, 255)
BOOLEAN = fixed({"type": ["boolean", "string"], "enum": [*_TRUE, *_FALSE]}, lambda value: value in _TRUE)
POSITIVE_INT = whole_number(1)
NON_NEGATIVE_INT = whole_number(0)
QUOTA = whole_number(-1)
# The longest spellings; kept in their one form, which is shorter.
IPV4 = fixed({"type": "string", "maxLength": 15, "format": "ipv4"}, canonical_address)
IPV6 = fixed({"type": "string", "maxLength": 45, "format": "ipv6"}, canonical_address)
METADATA_KEY = r"^[a-zA-Z0-9\-_:. ]{1,255}\Z"
METADATA = map_of(text(0, 255), keys=METADATA_KEY)
METADATA_OR_NULL = map_of(nullable(text(0, 255)), keys=METADATA_KEY)
NULL = fixed({"type": "null"})
ANY = fixed({})
"""Whatever it is, nobody looks at it."""


# Bodies


class Body:
    """A request body: ``{name: {properties}}``, or the properties alone where the name is None.

    ``beside`` are further keys next to the name, such as ``os:scheduler_hints`` next to ``server``.
    """

    def __init__(
        self, name: str | None, *properties: Property, closed: bool = True, beside: Sequence[Property] = ()
    ) -> None:
        self.name = name
        inner = structure(*properties, closed=closed)
        self.type = inner if name is None else structure(Property(name, inner, required=True), *beside)

    @classmethod
    def with_value(cls, name: str, inner: Type, beside: Sequence[Property] = ()) -> "Body":
        """A body ``{name: value}`` whose value is no plain object, such as ``{"tags": ["a"]}``."""
        body = cls(name)
        body.type = structure(Property(name, inner, required=True), *beside)
        return body

    @classmethod
    def of(cls, inner: Type) -> "Body":
        """A body that is a value of this type, without a name around it."""
        body = cls(None)
        body.type = inner
        return body


class BodyCheck:
    """A body's validator at one microversion; a loose one leaves out what a body may not hold, and refuses nothing of
    it."""

    def __init__(self, body: Body, version: Microversion, *, is_loose: bool = False) -> None:
        form = body.type.at(version)
        self._name = body.name
        self._schema = form.schema if is_loose else None
        self._validator = _validator(form.schema)
        self._convert = form.convert

    def __call__(self, document: Any) -> tuple[Any, Any]:
        """The inner value and the whole document, both converted.

        Raises:
            Invalid: names the field and says what is wrong with it.
        """
        if self._schema is not None:
            document = _loosened(document, self._schema)
        error = next(self._validator.iter_errors(document), None)
        if error is not None:
            _refuse_body(error)
        if self._convert is not None:
            try:
                document = self._convert(document)
            except ValueError as error:
                raise errors.Invalid(str(error), field="body") from None
        return (document if self._name is None else document[self._name]), document


def _loosened(value: Any, schema: Schema) -> Any:
    """The value without properties that a closed object does not have, and names without blanks at their ends: what
    clients older than microversions may send."""
    for branch in schema.get("anyOf", (schema,)):
        if isinstance(value, dict) and "properties" in branch:
            known = branch["properties"]
            return {key: _loosened(inner, known[key]) for key, inner in value.items() if key in known}
        if isinstance(value, list) and "items" in branch:
            return [_loosened(inner, branch["items"]) for inner in value]
        if isinstance(value, str) and branch.get("format") == "name":
            return value.strip()
    return value


def _refuse_body(failure: jsonschema.ValidationError) -> NoReturn:
    error = best_match([failure])
    why = _why(error)
    if not error.absolute_path:
        raise errors.Invalid(why, field=_first_quoted(why))
    raise _refusal(str(error.absolute_path[-1]), error.instance, why)


def _why(error: jsonschema.ValidationError) -> str:
    if error.validator == "format" and error.validator_value == "name":
        return NO_NAME
    message = str(error.message)
    if len(message) > 2 * _SHOWN_CHARACTERS:
        # Most begin with the whole value: what is wrong with it stands behind.
        message = _shown(error.instance) + message.removeprefix(repr(error.instance))
    return _cut(message, 2 * _SHOWN_CHARACTERS)


def _first_quoted(why: str) -> str | None:
    match = re.search(r"'([^']+)'", why)
    return match[1] if match else None


# Queries


class Query:
    """The query parameters of a route.

    Unknown ones are dropped, from ``strict_since`` on they are refused; those that fit ``refused`` are
    refused always. A known one without a value is refused, whatever it is: no filter of nothing means everything
    (decision 0023).
    """

    def __init__(
        self, *params: Param, strict_since: str = STRICT_QUERIES_SINCE, refused: str | None = None
    ) -> None:
        self.params = params
        self.strict_since = Microversion.parse(strict_since)
        self.refused = None if refused is None else re.compile(refused)


NO_QUERY = Query()


class QueryCheck:
    """A query's validators at one microversion."""

    def __init__(self, query: Query, version: Microversion) -> None:
        present = [each for each in query.params if Span.between(each.since, each.until).applies(version)]
        forms = {each.name: each.type.at(version) for each in present}
        self._known = {key: (_validator(form.schema), form.convert) for key, form in forms.items()}
        self.names = frozenset(forms)
        self._once = {each.name for each in present if each.once}
        self._strict = version >= query.strict_since
        self._refused = query.refused

    def __call__(self, pairs: list[tuple[str, str]]) -> dict[str, list[Any]]:
        """The known parameters, converted.

        Raises:
            Invalid: names the parameter and says what is wrong with it.
        """
        values: dict[str, list[Any]] = {}
        for key, value in pairs:
            if key in self._known:
                values.setdefault(key, []).append(self._value(key, value))
            else:
                self._unknown(key)
        for key in self._once:
            if len(values.get(key, ())) > 1:
                raise _query_refusal(key, pairs, "The parameter may be given once.")
        return values

    def _value(self, key: str, value: str) -> Any:
        validator, convert = self._known[key]
        if not value:
            raise _query_refusal(key, value, "It has no value.")
        error = next(validator.iter_errors(value), None)
        if error is not None:
            raise _query_refusal(key, value, _why(error))
        try:
            return value if convert is None else convert(value)
        except ValueError as refused:
            raise _query_refusal(key, value, str(refused)) from None

    def _unknown(self, key: str) -> None:
        if self._strict or (self._refused is not None and self._refused.match(key)):
            raise errors.Invalid(
                f"Additional properties are not allowed ({_shown(key)!r} was unexpected)", field=_shown(key)
            )


def _query_refusal(where: str, value: Any, why: str) -> errors.Invalid:
    return errors.Invalid(
        f"Invalid input for query parameters {where}. Value: {_shown(value)}. {why}", field=where
    )
