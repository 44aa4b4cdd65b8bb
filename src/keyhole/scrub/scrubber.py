"""The compiled scrubber of one loan, and its stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import escapes
from .forms import Meant, derive, derive_wire, meant
from .matcher import Matcher, Span

_PIECE = 512 * 1024
"""Bytes scanned at once: bounds what one call allocates however large its argument is. A connection gives less."""


_NO_BASE64 = frozenset(bytes((code,)) for code in b"\n\t }])>;:,.!?'\"")
"""What may stand before a line break in ordinary text and events, but not in base64."""


class Scrubber:
    """Removes the values it was compiled for, in all their forms. Immutable; share it between streams and threads.

    Every byte of an occurrence becomes ``*``, so lengths never change. Build it with `Scrubber.compile`.
    """

    __slots__ = ("_gate", "_matcher", "_meant", "_passes", "_values", "_wrapped_reach")

    def __init__(self, matcher: Matcher | None, values: tuple[bytes, ...]) -> None:
        self._matcher = matcher
        self._values = values
        self._gate: escapes.Gate | None = None
        self._wrapped_reach = matcher.wrapped_reach if matcher else 0
        self._meant: tuple[Meant, ...] = tuple(filter(None, map(meant, values)))
        self._passes = escapes.PASSES + max((escapes.undone(value)[1] for value in values), default=0)

    @classmethod
    def compile(cls, values: Iterable[bytes], forms: Iterable[bytes] = ()) -> Scrubber:
        """Compile once per set of values and keep the result.

        Args:
            values: the secrets of a loan. Those for which `too_short` is true are left out.
            forms: byte strings made from them that an injection put on the wire, such as the base64 of Basic
                credentials or a signature. They are found as a whole, also encoded again.

        Returns:
            The scrubber; its ``empty`` is true when nothing is left to look for.
        """
        values, forms = tuple(values), tuple(forms)
        patterns = [form for value in values for form in derive(value)]
        patterns += [form for wire in forms for form in derive_wire(wire)]
        return cls(Matcher(patterns) if patterns else None, (*values, *forms))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to scrub, so that answers may pass by."""
        return self._matcher is None

    def __repr__(self) -> str:
        return "Scrubber(***)"

    def is_clean(self, data: bytes) -> bool:
        """Whether a text surely holds nothing, nor does any part of it. Quick, and ``False`` in doubt."""
        if self._matcher is None:
            return True
        spans, wraps, seams = self._matcher.find(data)
        if spans or wraps or seams:
            return False
        find = data.find  # ``in`` takes twice as long: it first makes an error of what is no number
        return find(b"%") < 0 and find(b"&") < 0 and find(b"\\") < 0

    def leaves(self, data: bytes) -> bool:
        """Whether a piece of a stream surely holds nothing, and nothing can begin at its end, as for most events.

        What they end with, an empty line, stands in no form and in no escape, and does not belong to base64.
        """
        if not data.endswith(b"\n\n") or self._matcher is None or not self._matcher.one_line:
            return False
        find = data.find  # as in ``is_clean``
        return find(b"%") < 0 and find(b"&") < 0 and find(b"\\") < 0 and self._matcher.nothing(data)

    def text(self, data: bytes) -> bytes:
        """A complete short piece: a header's value, a reason phrase, an error text. The length stays the same."""
        if len(data) > _PIECE:
            stream = self.stream()
            return stream.feed(data) + stream.finish()
        spans, _ = self.scan(data, b"", final=True)
        return _mask(data, spans) if spans else data

    def stream(self) -> Stream:
        """A stream for one body of plain bytes, in pieces of any size."""
        return Stream(self)

    def scan(self, text: bytes, context: bytes, *, final: bool) -> tuple[list[Span], int]:
        """The occurrences in a text, and from where on it must be held back because one may begin there.

        Args:
            text: what to look at.
            context: up to 60 bytes that came before it.
            final: whether nothing follows, so that nothing is held back.

        Returns:
            Half-open spans in no order, and the offset of the part to hold back.
        """
        matcher = self._matcher
        if matcher is None:
            return [], len(text)
        spans, wraps, seams = matcher.find(text)
        hold = len(text) if final else self._hold(text)
        view = None
        if wraps or not final:
            view = self._joined(text, context, whole=wraps)
            if view:
                hold = self._scan_view(view, spans, hold, final=final)
        if b"\\" in text or b"%" in text or b"&" in text or seams:
            if view and wraps:
                hold = self._scan_layers(view.text, view, spans, hold, final=final, passes=self._passes)
            else:
                hold = self._scan_layers(text, None, spans, hold, final=final, passes=self._passes)
        return spans, hold

    def _scan_layers(
        self, text: bytes, parent: escapes.View | None, spans: list[Span], hold: int, *, final: bool, passes: int
    ) -> int:
        """Look under the escapes of a text, and under those of the result as often as ``passes`` says."""
        gate = self._gate
        if gate is None:
            gate = self._gate = escapes.Gate(self._values)
        regions = gate.regions(text, final=final)
        whole = len(text) if final or not regions else escapes.unfinished(text)
        for begin, end in regions:
            views = escapes.decoded(text[begin : min(end, whole)], begin, parent)
            last = final or end < whole
            for view in views:
                hold = self._scan_view(view, spans, hold, final=last)
            if views and passes > 1:
                hold = self._scan_layers(views[0].text, views[0], spans, hold, final=last, passes=passes - 1)
        return hold

    def _scan_view(self, view: escapes.View, spans: list[Span], hold: int, *, final: bool) -> int:
        found, _, _ = self._matcher_or_fail.find(view.text)
        spans += [(max(view.start(begin), 0), view.end(end)) for begin, end in found if view.end(end) > 0]
        for each in self._meant:
            spans += _spelled(each, view)
        if final:
            return hold
        held = self._hold(view.text)
        for each in self._meant:
            held = min(held, _begun(each.data, view.text))
        return min(hold, max(view.start(held), 0)) if held < len(view.text) else hold

    def _hold(self, text: bytes) -> int:
        """Where what must be held back begins; behind something unfinished there may stand another that is.

        An unfinished colour or seam stands for nothing, so that only a beginning before it matters.
        """
        tail = self._matcher_or_fail.tail
        hold, left = tail(text), text
        for _ in range(escapes.PASSES):
            cut = escapes.unfinished(left)
            if cut < len(left):
                hold = min(hold, cut, tail(left[:cut]))
            else:
                cut = escapes.unfinished_seam(left)
                if cut == len(left):
                    break
                before = tail(left[:cut])
                hold = min(hold, before) if before < cut else hold
            left = left[:cut]
        return hold

    def _joined(self, text: bytes, context: bytes, *, whole: bool) -> escapes.View | None:
        """The text with the lines of base64 joined: all of it, or the end, where an occurrence may begin."""
        if not whole:
            reach = self._wrapped_reach
            window = text[-reach:]
            last = max(window.rfind(b"\n"), window.rfind(b"\r"), window.rfind(b"\\"))
            if last < 0 or window[last - 1 : last] in _NO_BASE64:
                return None
            if len(text) > reach + escapes.CONTEXT:
                return escapes.joined(text[-reach - escapes.CONTEXT :], len(text) - reach - escapes.CONTEXT)
        return escapes.joined(context + text, -len(context))

    @property
    def _matcher_or_fail(self) -> Matcher:
        assert self._matcher is not None  # noqa: S101  # texts are scanned for a matcher only
        return self._matcher


class Stream:
    """One body on its way through a scrubber: ``feed`` piece by piece, then ``finish`` once.

    What may be the beginning of an occurrence is held back until it is decided, however long that takes; everything
    else leaves at once. A piece without occurrences is returned as it is, without a copy.
    """

    __slots__ = ("_context", "_held", "_masked", "_scrubber", "_shown", "masked")

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self._held = b""
        self._shown = 0  # bytes of it that have left all the same
        self._masked: list[Span] = []  # within the part held back
        self._context = b""
        self.masked = False
        """Whether anything was masked so far."""

    @property
    def held(self) -> int:
        """Bytes that are held back at this moment."""
        return len(self._held) - self._shown

    def feed(self, data: bytes) -> bytes:
        """Take the next piece and give what can be released."""
        if not self._held and self._scrubber.leaves(data):
            size = escapes.CONTEXT
            self._context = data[-size:] if len(data) >= size else (self._context + data)[-size:]
            return data
        if len(data) > _PIECE:
            return b"".join([self._advance(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)])
        return self._advance(data)

    def finish(self) -> bytes:
        """Say that the body has ended and get what was held back."""
        return self._advance(b"", final=True)

    def show(self, most: int) -> bytes:
        """Give a little of what is held back, for a person who waits for it.

        Args:
            most: bytes that a beginning of an occurrence may show. They are looked at further: of an occurrence that
                goes on behind them, all the rest is masked.
        """
        if self._shown >= min(most, len(self._held)):
            return b""
        begin, self._shown = self._shown, min(most, len(self._held))
        return _mask(self._held, self._masked)[begin : self._shown]

    def _advance(self, data: bytes, *, final: bool = False) -> bytes:
        text = self._held + data if self._held else data
        if not text:
            return b""
        spans, hold = self._scrubber.scan(text, self._context, final=final)
        spans += self._masked
        if spans:
            self.masked = True
            text, original = _mask(text, spans), text
            self._masked = [(max(begin - hold, 0), end - hold) for begin, end in spans if end > hold]
        else:
            original = text
        self._context = (
            original[hold - escapes.CONTEXT : hold]
            if hold >= escapes.CONTEXT
            else (self._context + original[:hold])[-escapes.CONTEXT :]
        )
        shown = self._shown
        self._shown = max(shown - hold, 0)
        if hold == len(text):
            self._held = b""
            return text[shown:] if shown else text
        self._held = original[hold:]
        return text[shown:hold]


def _spelled(short: Meant, view: escapes.View) -> Iterator[Span]:
    """Where a view shows a short text that takes as many bytes as the value which stands for it."""
    at = view.text.find(short.data)
    while at >= 0:
        begin, end = max(view.start(at), 0), view.end(at + len(short.data))
        if end - begin >= short.least:
            yield begin, end
        at = view.text.find(short.data, at + 1)


def _begun(data: bytes, text: bytes) -> int:
    """Where a beginning of ``data`` stands at the end of the text, else ``len(text)``."""
    sizes = range(min(len(data) - 1, len(text)), 0, -1)
    return next((len(text) - size for size in sizes if text.endswith(data[:size])), len(text))


def _mask(text: bytes, spans: list[Span]) -> bytes:
    masked = bytearray(text)
    for begin, end in spans:
        masked[begin:end] = b"*" * (end - begin)
    return bytes(masked)
