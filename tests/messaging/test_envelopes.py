"""What travels: understood by neighbouring releases, refused with the field's name otherwise."""

import json

import msgspec
import pytest

from core import errors
from core.context import Context
from messaging import dead_letters, envelopes
from messaging.verbs import Verb
from tests.messaging.vocabulary import ADD_ONE, Number, Sum

CONTEXT = Context(user_id="alice", project_id="p", roles=("member",), request_id="req-1", global_request_id="req-0")


def sent(**changes: object) -> envelopes.Envelope:
    body = envelopes.envelope(ADD_ONE, Number(4), context=CONTEXT, deadline_s=1.5, sent_by="api-1")
    return envelopes.decode(json.dumps({**json.loads(body), **changes}).encode(), envelopes.Envelope)


def test_an_envelope_says_who_asks_what_until_when() -> None:
    envelope = sent()

    assert (envelope.verb, envelope.version, envelope.sent_by) == ("add_one", "1.0", "api-1")
    assert (envelope.request_id, envelope.trace, envelope.deadline_ms) == ("req-1", "req-0", 1500)
    assert Context.from_fields(envelope.context) == CONTEXT
    assert envelopes.arguments_of(envelope, ADD_ONE) == Number(4)


def test_what_a_newer_program_adds_is_ignored() -> None:
    envelope = sent(
        arguments={"number": 4, "since_next_release": [1]},
        version="1.7",
        hops=3,
        context={**CONTEXT.to_fields(), "scopes": []},
    )

    assert envelopes.arguments_of(envelope, ADD_ONE) == Number(4)
    assert Context.from_fields(envelope.context) == CONTEXT


def test_what_an_older_program_does_not_send_has_a_default() -> None:
    class NewerNumber(Number):
        step: int = 1

    assert envelopes.arguments_of(sent(), Verb("add_one", "1.1", NewerNumber)) == NewerNumber(4)


def test_another_major_version_is_refused() -> None:
    with pytest.raises(errors.Invalid, match=r"add_one 2\.0 from api-1 is refused: this program supports add_one 1\.0"):
        envelopes.arguments_of(sent(version="2.0"), ADD_ONE)


class Deep(msgspec.Struct):
    servers: list[Number]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "servers"),
        ({"servers": 3}, "servers"),
        ({"servers": [{"number": 1}, {"number": "2"}]}, "servers[1].number"),
        ({"servers": [{}]}, "servers[0].number"),
        ([], ""),
    ],
)
def test_the_field_that_is_wrong_is_named(arguments: object, field: str) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        envelopes.arguments_of(sent(arguments=arguments), Verb("add_one", "1.0", Deep))

    assert refusal.value.fields == {"field": field}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\xff", b"[]", b"{}"])
def test_nonsense_is_invalid(body: bytes) -> None:
    with pytest.raises(errors.Invalid):
        envelopes.decode(body, envelopes.Envelope)


def test_a_reply_carries_a_value() -> None:
    assert envelopes.value_of(envelopes.reply_with(Sum(5)), ADD_ONE) == Sum(5)


def test_a_reply_to_a_verb_without_one_is_nothing() -> None:
    assert envelopes.value_of(envelopes.reply_with(None), Verb("note", "1.0", Number)) is None


def test_a_reply_carries_an_error_with_its_fields() -> None:
    body = envelopes.reply_with_error(errors.OverQuota("too many", quota="cores", used=20, tags=("a",), odd=object))

    with pytest.raises(errors.OverQuota, match="too many") as answer:
        envelopes.value_of(body, ADD_ONE)
    assert answer.value.fields == {"quota": "cores", "used": 20, "tags": ["a"], "odd": "<class 'object'>"}


def test_an_error_of_a_newer_program_is_broken() -> None:
    body = envelopes.encode(envelopes.Reply(error=envelopes.Fault(code="Quantum", message="entangled")))

    with pytest.raises(errors.Broken, match="entangled"):
        envelopes.value_of(body, ADD_ONE)


def test_a_dead_letter_keeps_the_envelope() -> None:
    body = dead_letters.letter(
        queue="conductor", why="poison", deliveries=5, body=b"", envelope=sent(), sent_by="conductor"
    )

    letter = envelopes.arguments_of(envelopes.decode(body, envelopes.Envelope), dead_letters.DEAD_LETTER)
    assert (letter.queue, letter.why, letter.deliveries) == ("conductor", "poison", 5)
    assert letter.envelope == sent()
