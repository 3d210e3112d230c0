"""What Kafka answers when it does not take a batch: what that means, and what to do about it.

Codes: https://kafka.apache.org/protocol.html#protocol_error_codes
"""

from __future__ import annotations

from typing import Final, NamedTuple

from aiokafka import errors as kafka_errors

from streamer.errors import NotConnected, PermanentlyRefused

STORED: Final = frozenset({0, 46})
"""None, and DUPLICATE_SEQUENCE_NUMBER: an earlier attempt of this very batch was stored, its answer was lost."""

TOO_LARGE: Final = frozenset({10, 18})
"""MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE: smaller batches may go in; a record alone never will."""

INVALID: Final = frozenset({2, 43, 44, 87})
"""CORRUPT_MESSAGE, UNSUPPORTED_FOR_MESSAGE_FORMAT, POLICY_VIOLATION, INVALID_RECORD: a record among these is not wanted."""

INVALID_TIMESTAMP: Final = 32

UNANSWERED: Final = -1
NO_LEADER: Final = 5
CONNECTION_LOST: Final = 13

LATE: Final = frozenset({UNANSWERED, 7})
"""Come when a request's time is over: no answer at all, or REQUEST_TIMED_OUT from the leader that waited for its replicas."""

TRANSIENT: Final = frozenset({UNANSWERED, 3, NO_LEADER, 6, 7, CONNECTION_LOST, 19, 56, 74, 75})
"""May pass within seconds, as when a leader moves: the same batch is tried again, under the same sequence numbers.

No answer at all, UNKNOWN_TOPIC_OR_PARTITION, LEADER_NOT_AVAILABLE, NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT, NETWORK_EXCEPTION,
NOT_ENOUGH_REPLICAS, KAFKA_STORAGE_ERROR, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH.
"""

_AUTHORIZE: Final = "allow the agent's user to write, describe and write idempotently: kafka-acls --producer --idempotent --topic …"
_REPLACED: Final = "nothing to do: the producer is replaced and the batch sent again"


class _Answer(NamedTuple):
    """An error code in words. `final`: it stays until the operator acts."""

    words: str
    remedy: str = ""
    final: bool = False


_ANSWERS: Final[dict[int, _Answer]] = {
    UNANSWERED: _Answer("no answer in time: the broker hangs, or the network", "see the broker's health"),
    3: _Answer("the topic or partition is not there"),
    5: _Answer("no leader", "start the brokers that hold this partition"),
    6: _Answer("the leader has moved"),
    7: _Answer("the replicas did not answer in time", "see the brokers' health"),
    13: _Answer("the connection broke before the answer came"),
    17: _Answer("not a name for a topic", "correct publishing.prefix", final=True),
    19: _Answer("fewer replicas in sync than min.insync.replicas", "start the missing brokers, or lower min.insync.replicas"),
    20: _Answer("fewer replicas in sync than min.insync.replicas", "start the missing brokers, or lower min.insync.replicas"),
    21: _Answer("acks=all is not allowed", "let the topic take acks=all", final=True),
    29: _Answer("not allowed to write", _AUTHORIZE, final=True),
    31: _Answer("not allowed to write idempotently", _AUTHORIZE, final=True),
    45: _Answer("out of order sequence number: the broker lost track of this producer", _REPLACED),
    47: _Answer("the producer's epoch is old: another one has its id", _REPLACED),
    53: _Answer("not allowed to write under this transactional id", _AUTHORIZE, final=True),
    56: _Answer("the broker cannot write to its disk", "free or mend the broker's log directory"),
    59: _Answer("the broker does not know this producer any more", _REPLACED),
    90: _Answer("the producer was fenced: another one has its id", _REPLACED),
}

_REFUSED: Final[tuple[tuple[type[Exception], str], ...]] = (
    (kafka_errors.TopicAuthorizationFailedError, _AUTHORIZE),
    (kafka_errors.ClusterAuthorizationFailedError, _AUTHORIZE),
    (kafka_errors.SaslAuthenticationFailed, "correct user and password"),
    (kafka_errors.AuthenticationFailedError, "correct user and password"),
    (kafka_errors.UnsupportedSaslMechanismError, "choose one that the broker offers: ?sasl=…"),
    (kafka_errors.IllegalSaslStateError, "the listener wants no SASL: name one that does, or leave user and password out"),
    (kafka_errors.InvalidTopicError, "correct publishing.prefix"),
    (kafka_errors.PolicyViolationError, "see the cluster's policy"),
    (kafka_errors.InvalidRequiredAcksError, "let the topic take acks=all"),
)
"""Errors of connecting and administering that stay until the operator acts, and what to do."""


def answered(code: int, where: str) -> NotConnected | PermanentlyRefused:
    """The error for a batch that a broker refused with `code`."""
    known = _ANSWERS.get(code)
    if known is None:
        return NotConnected(f"{where}: {kafka_errors.for_code(code).__name__} (code {code})")
    return (PermanentlyRefused if known.final else NotConnected)(f"{where}: {known.words}", remedy=known.remedy)


def in_words(code: int) -> str:
    """What is said of a record that is rejected with `code`."""
    return {2: "corrupt", 43: "the topic's message format is too old", 44: "against the cluster's policy"}.get(code, "invalid")


def refused(error: BaseException) -> NotConnected | PermanentlyRefused:
    """The error for something that aiokafka raised."""
    for kind, remedy in _REFUSED:
        if isinstance(error, kind):
            return PermanentlyRefused(str(error), remedy=remedy)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return PermanentlyRefused(str(error), remedy="name the authority that signed the broker's certificate: ?ca=/path.pem")
    return NotConnected(str(error) or type(error).__name__)


def not_allowed_to_see(topics: str) -> PermanentlyRefused:
    """The error when the broker hides topics from this user."""
    return PermanentlyRefused(f"not allowed to see {topics}", remedy=_AUTHORIZE)
