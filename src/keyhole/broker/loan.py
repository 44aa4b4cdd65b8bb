"""A loan: one service and its secrets, for one message. It is never serialised, and what it knows goes with it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from keyhole import scrub
from keyhole.core import grpc
from keyhole.core.fair import ASKING, FairCache
from keyhole.core.inject import KINDS
from keyhole.core.message import Headers, Message
from keyhole.core.path import CERTIFICATE
from keyhole.core.record import Intent
from keyhole.core.service import Service
from keyhole.core.value import Secret
from keyhole.injections import Steps, Terms, inject, needs_content
from keyhole.injections.placeholder import in_frames, take_out
from keyhole.scrub.grpc import metadata

# Parts of an answer are asked for piecewise by a range, and could be put together behind the scrubber's back: also by
# the older name that Apache takes, or as the difference to what was had before (RFC 3229).
_RANGE = frozenset({b"range", b"if-range", b"request-range", b"a-im"})
_STALE_WHEN_RECODED = frozenset(
    {b"content-length", b"etag", b"content-md5", b"digest", b"content-digest", b"repr-digest", b"accept-ranges"}
)


class Scrubbers:
    """Compiled scrubbers of recent loans, found by what they look for, which each of them holds anyway.

    A secret is read and opened fresh for every loan; only the automaton that looks for it is kept, bounded, because
    making one costs more than all else in a call.
    """

    def __init__(self, limit: int = 512) -> None:
        self._known: FairCache[tuple[bytes, ...], scrub.Scrubber] = FairCache(limit)

    def get(self, values: list[bytes], forms: list[bytes]) -> scrub.Scrubber:
        """The scrubber for these values and forms."""
        name, org = (*values, b"", *forms), ASKING.get()[0]
        known = self._known.get(org, name)
        if known is None:
            known = scrub.Scrubber.compile(values, forms)
            self._known.put(org, name, known)
        return known


class Loan:
    """What the door lent for one call.

    Args:
        service: through which it was lent.
        lent: field to secret.
        intent: to be concluded when the call ends.
        scrubbers: where compiled scrubbers are kept.
        former: by field, what is masked in answers besides, and never sent.

    Attributes:
        masked: whether anything was masked in the head of the answer.
        values: the lent secrets in clear, by field.
        certificate: the fields of the client's certificate.
    """

    __slots__ = (
        "_former",
        "_forms",
        "_grpc",
        "_scrubbers",
        "certificate",
        "intent",
        "masked",
        "scrubber",
        "service",
        "values",
    )

    def __init__(
        self,
        service: Service,
        lent: Mapping[str, Secret],
        intent: Intent,
        scrubbers: Scrubbers,
        former: Mapping[str, tuple[Secret, ...]] = MappingProxyType({}),
    ) -> None:
        self.service = service
        self.intent = intent
        self.masked = self._grpc = False
        self.scrubber: scrub.Scrubber | None = None
        self.values = {field: secret.reveal() for field, secret in lent.items()}
        self.certificate: dict[str, bytes] = {}
        if service.certified:
            for name in [name for name in self.values if name.startswith(CERTIFICATE)]:
                self.certificate[name] = self.values.pop(name)
        self._scrubbers = scrubbers
        self._forms: list[bytes] = []
        self._former: list[bytes] = []
        self.renewed(former)

    def secrets(self) -> list[bytes]:
        """The values that nobody may see: all but public ones, such as the id of a key."""
        public = KINDS[self.service.inject.kind].public
        if not public:
            return [*self.values.values(), *self._former]
        return [*(value for field, value in self.values.items() if field not in public), *self._former]

    def replace(self, others: Mapping[str, Secret]) -> None:
        """Take other values for fields whose values were refused; answers are searched for those too."""
        self._former += [self.values[field] for field in others]
        self.values |= {field: secret.reveal() for field, secret in others.items()}

    @property
    def longest(self) -> int:
        """Bytes of a body that the injection can work on."""
        return KINDS[self.service.inject.kind].longest

    def needs_content(self, message: Message) -> bool:
        """Whether the injection works on the whole body."""
        return needs_content(message, self.service.inject)

    def inject(self, message: Message, now: float, kept: dict[str, Any]) -> Steps:
        """Start to attach the secrets; the client's own placeholder and ranges are taken out.

        A kind that signs reads where the client's placeholder stands, and keeps ranges, of which its SDKs make large
        downloads; what an upstream echoed could then be fetched in pieces.
        """
        if not KINDS[self.service.inject.kind].signs:
            _remove_placeholder(message, self.service)
            message.headers = [pair for pair in message.headers if pair[0] not in _RANGE]
        accepted = message.get(b"accept-encoding")
        if accepted is not None:
            message.set(b"accept-encoding", scrub.accept_encoding(accepted))
        grpc.narrow(message.headers, message.set)
        return inject(message, self.service.inject, Terms(self.values, now, kept))

    def injected(self, message: Message) -> None:
        """A message is about to be sent: from here on its forms are looked for in answers too."""
        self._forms = message.forms
        self.hide(())

    def renewed(self, former: Mapping[str, tuple[Secret, ...]]) -> None:
        """Look for these too: by field, other values of what was lent, which is being replaced at its source."""
        public = KINDS[self.service.inject.kind].public
        found = [each.reveal() for name, them in former.items() if name not in public for each in them]
        if set(found) - set(self._former):
            self._former = list(dict.fromkeys([*self._former, *found]))
            if self.scrubber is not None:
                self.hide(())

    def hide(self, more: Iterable[bytes]) -> None:
        """Look for further values too, such as one that the answer has brought."""
        self.scrubber = self._scrubbers.get([*self.secrets(), *self.certificate.values(), *more], self._forms)

    def change(self) -> Callable[[bytes], bytes] | None:
        """What is done to the text messages of a WebSocket that the client sends; ``None`` for nothing."""
        how = self.service.inject
        if how.kind != "placeholder" or "frame" not in how["in"]:
            return None
        [value] = self.values.values()
        return lambda message: in_frames(message, how, value)

    def head(self, reason: bytes, headers: Headers) -> tuple[bytes, Headers]:
        """The reason phrase and the headers of an answer, scrubbed. A header with a secret in its name is left out."""
        scrubber = self.scrubber
        if scrubber is None or scrubber.empty:
            return reason, headers
        self._grpc = grpc.has_messages(headers)
        if not self._grpc and scrubber.is_clean(b"\n".join([reason, *itertools.chain.from_iterable(headers)])):
            return reason, headers
        return self._text(scrubber, reason), self._fields(scrubber, headers)

    def trailers(self, trailers: Headers) -> Headers:
        """The trailers of an answer without those that hold a secret: every recipient does without them.

        Those of gRPC are as good as headers, and are scrubbed like them.
        """
        scrubber = self.scrubber
        if scrubber is None or scrubber.empty or not trailers:
            return trailers
        if self._grpc:
            return self._fields(scrubber, trailers)
        clean = [pair for pair in trailers if scrubber.is_clean(b"\n".join(pair))]
        self.masked = self.masked or len(clean) < len(trailers)
        return clean

    def _fields(self, scrubber: scrub.Scrubber, headers: Headers) -> Headers:
        clean = [pair for pair in headers if scrubber.text(pair[0]) == pair[0]]
        self.masked = self.masked or len(clean) < len(headers)
        if not self._grpc:
            return [(name, self._text(scrubber, value)) for name, value in clean]
        scrubbed = [(name, metadata(scrubber, name, value)) for name, value in clean]
        self.masked = self.masked or scrubbed != clean
        return scrubbed

    def _text(self, scrubber: scrub.Scrubber, text: bytes) -> bytes:
        clean = scrubber.text(text)
        if clean is not text:
            self.masked = True
        return clean

    def body(self, headers: Headers) -> scrub.BodyScrubber | scrub.GrpcScrubber | None:
        """The scrubber for an answer's body. Raises ``ScrubFailedClosed`` for a coding that cannot be inspected."""
        if self.scrubber is None or self.scrubber.empty:
            return None
        coding = b", ".join(value for name, value in headers if name == b"content-encoding")
        if grpc.is_kin(headers):
            if grpc.has_messages(headers):
                return scrub.messages(self.scrubber, grpc.coding(headers), grpc.last(headers), coding)
            if grpc.is_text(headers):
                scrub.require_plain(grpc.coding(headers))
        return scrub.body(self.scrubber, coding)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a loan is never serialised")


def without_stale(headers: Headers) -> Headers:
    """Headers that are still right for a body that was decoded and encoded again."""
    return [pair for pair in headers if pair[0] not in _STALE_WHEN_RECODED]


def _remove_placeholder(message: Message, service: Service) -> None:
    """Take out what the client's SDK sent with a placeholder, when it is not the injection's own text."""
    if service.inject.kind == "placeholder":
        return
    for text in (service.placeholder, *service.placeholders.values()):
        if text:
            take_out(message, text.encode())
