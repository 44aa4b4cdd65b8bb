"""Request targets in one normal form, and the path globs that they are judged by.

What is judged is byte for byte what is sent. A path that a proxy and an upstream could read differently is refused,
because there is no form in which both readings are judged:

1. Dot segments, written in any way: raw, percent-encoded, before a ``;parameter``, or by a compatibility character.
2. Backslashes, control characters, and what is percent-encoded three times.
3. Percent triplets that are malformed, and UTF-8 that is overlong, which some decoders take for ASCII.

What servers are known to read in a few ways that can all be told is sent as it is, and judged in each of them
(``readings``): empty segments, encoded slashes, what is percent-encoded twice, and bytes that are no UTF-8.

The rest has one form: unreserved characters are never encoded, everything else that RFC 3986 does not allow in a path
always is, with upper-case digits. The query is passed on byte for byte, except that bytes above 127 are encoded.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import quote_from_bytes, unquote, unquote_to_bytes

from keyhole.core.codepoints import is_invisible, is_stream_safe
from keyhole.core.errors import BadRequestFraming, InvalidRequest

_PCHAR = "!$&'()*+,;=:@/"  # what may stand in a path besides the unreserved characters (RFC 3986, section 3.3)
_PLAIN_PATH = re.compile(rb"(?:/[A-Za-z0-9_~-]+)+/?\Z")  # nothing in it to decide
_TRIPLET = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN_TRIPLET = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DOUBLE = re.compile(rb"%25[0-9A-Fa-f]{2}")
_MANIFOLD = re.compile(rb"//|%2F|%25[0-9A-Fa-f]{2}")
_AGAIN = re.compile(r"%[0-9A-Fa-f]{2}")
_WIDE = re.compile(r"%[uU][0-9A-Fa-f]{4}")  # in which a second decoder of Microsoft's would read a character
_SLASH = re.compile("%2[Ff]")
_SLASHES = re.compile("//+")
# A first byte of UTF-8 without bits of its own: what follows makes a character that has a shorter form (CVE-2000-0884).
_OVERLONG = re.compile(
    rb"[\xc0\xc1]|\xe0[@A\x80-\x9f]|\xed[\xa0-\xbf]|\xf0[@A\x80-\x8f]|\xf8[@A\x80-\x87]|\xfc[@A\x80-\x83]"
)
_MOST = 8  # readings
_ILLEGAL = re.compile(rb"[\x00-\x20\x7f#]")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_STAR = "\ufdd0"  # a noncharacter (Unicode, section 23.7), which no path may have
_SEPARATORS = frozenset("/\\%;")

_HINT = "send the path in its normal form (RFC 3986, section 6.2.2)"


def canonical_target(target: bytes) -> bytes:
    """The one form of an origin-form target (``/path?query``) that is judged and sent. Idempotent.

    Args:
        target: as received. Its path may have several meanings; see ``readings``.

    Raises:
        BadRequestFraming: it is no origin-form, or has bytes that no request line may have.
        InvalidRequest: its path could be read in ways that cannot be told, or in too many.
    """
    return judged(target)[0]


def judged(target: bytes) -> tuple[bytes, tuple[str, ...]]:
    """What ``canonical_target`` and ``readings`` say of it, found at once. Raises what the first raises."""
    path, mark, query = target.partition(b"?")
    if not path.startswith(b"/"):
        raise BadRequestFraming("the request target does not start with '/'", "send origin-form: /path?query")
    if _ILLEGAL.search(target):
        raise BadRequestFraming("the request target has a space, a control character or a '#'", "percent-encode it")
    path, meant = (path, (path.decode(),)) if _PLAIN_PATH.match(path) else _normal_path(path)
    return path + mark + (query if query.isascii() else _encode_query(query)), meant


def readings(target: bytes) -> tuple[str, ...]:
    """The decoded paths of a canonical target, on which rules are judged; the usual one first.

    There is one, unless the server has a choice. Then a rule that allows must allow every reading, and one that denies
    denies any:

    - whether an encoded slash separates (RFC 3986, section 2.2);
    - whether slashes in a row are one, as with ``merge_slashes`` of nginx, and whether ``//name`` at the beginning is
      an authority, as for the URL standard's parser;
    - whether what is decoded is decoded again;
    - what becomes of bytes that are no UTF-8: characters of ISO 8859-1, U+FFFD, or nothing.
    """
    path = target.partition(b"?")[0]
    if b"%" not in path and b"//" not in path:
        return (path.decode(),)
    return _readings(path)


def _readings(path: bytes) -> tuple[str, ...]:
    if not _MANIFOLD.search(path):
        with contextlib.suppress(UnicodeDecodeError):
            return (unquote_to_bytes(path).decode(),)
    found: dict[str, None] = {}
    for text in _meant(_resolved([path.decode()])):
        _note(found, text)
    for text in _meant([text for text in found if _AGAIN.search(text)]):
        if text not in found and _AGAIN.search(text.replace("%2F", "")):
            raise _too_often()
        _note(found, text)
    return tuple(found)


def _meant(encoded: Iterable[str]) -> Iterator[str]:
    """What these are, decoded once."""
    for text in encoded:
        yield from _resolved(_decoded(text))


def _note(found: dict[str, None], text: str) -> None:
    found[text] = None
    if len(found) > _MOST:
        raise InvalidRequest("the path could be read in too many ways", _HINT)


def _too_often() -> InvalidRequest:
    return InvalidRequest("the path is percent-encoded three times", _HINT)


def _decoded(path: str) -> Iterator[str]:
    """A path decoded once, in every charset; then without the encoded slashes, which stay as they are."""
    kept = _SLASH.sub("%252F", path)
    for text in (path, kept) if kept != path else (path,):
        try:
            yield unquote(text, errors="strict")
        except UnicodeDecodeError:
            if _OVERLONG.search(unquote_to_bytes(text)):
                raise InvalidRequest("the path is overlong UTF-8", _HINT) from None
            yield unquote(text, "latin-1")
            yield unquote(text, errors="replace")
            yield unquote(text, errors="ignore")


def _resolved(texts: Iterable[str]) -> Iterator[str]:
    """Each path as it is, then with its slashes merged; the same without what may be an authority before it."""
    for text in texts:
        yield text
        while "//" in text:
            yield _SLASHES.sub("/", text)
            if not text.startswith("//"):
                break
            text = "/" + text.lstrip("/").partition("/")[2]  # noqa: PLW2901 - what is left of it
            yield text


def _normal_path(path: bytes) -> tuple[bytes, tuple[str, ...]]:
    if b"\\" in path:
        raise InvalidRequest("the path has a backslash", _HINT)
    if _BROKEN_TRIPLET.search(path):
        raise InvalidRequest("the path has a '%' that is not followed by two hexadecimal digits", _HINT)
    path = quote_from_bytes(_TRIPLET.sub(_normal_triplet, path), safe=_PCHAR + "%").encode()
    if _DOUBLE.search(path) and b"%2F" in path:
        raise InvalidRequest("the path has an encoded slash, and is percent-encoded twice", _HINT)
    if _TRIPLET.search(unquote_to_bytes(unquote_to_bytes(path))):
        raise _too_often()
    known: set[str] = set()
    meant = _readings(path)
    for text in meant:
        if _WIDE.search(text):
            raise InvalidRequest("the path is percent-encoded twice, and not as RFC 3986 says", _HINT)
        for segment in text.split("/")[1:]:
            if segment not in known:
                known.add(segment)
                _check_segment(segment)
    return path, meant


def _normal_triplet(match: re.Match[bytes]) -> bytes:
    code = int(match[1], 16)
    return bytes((code,)) if code in _UNRESERVED else match[0].upper()


def _check_segment(text: str) -> None:
    if any(char == "\\" or char < " " or char in "\x7f\ufdd0" for char in text):
        raise InvalidRequest("the path has an encoded backslash or control character", _HINT)
    if not text.isascii() and not is_stream_safe(text):
        raise InvalidRequest("the path has too many combining characters in a row", _HINT)
    folded = text if text.isascii() else _visible(unicodedata.normalize("NFKC", text))
    if any(folded.count(char) > text.count(char) for char in _SEPARATORS):
        raise InvalidRequest("the path has a character that can be taken for a separator", _HINT)
    for name in (text, folded) if folded != text else (text,):
        bare = name.partition(";")[0]
        if name and not bare:
            raise InvalidRequest("the path has a segment of parameters alone", _HINT)
        if bare and not bare.strip(". \u00a0"):
            raise InvalidRequest("the path has a segment of dots or spaces", _HINT)


def _encode_query(query: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte if byte > 127 else bytes((byte,)) for byte in query)


class PathGlob:
    """A path rule: ``*`` stays within a segment, a segment ``**`` crosses them; everything else is literal.

    At the end ``**`` stands for at least one segment (``/v1/**`` does not match ``/v1``, but ``/v1/``), elsewhere for
    any number of segments, also none. A lone ``*`` stands for one segment that is not empty. Matching takes time in
    proportion to pattern and path, whatever they are.

    Raises:
        InvalidRequest: the pattern has no normal form, or could never match a canonical path.
    """

    __slots__ = ("_folded", "_segments", "pattern")

    def __init__(self, pattern: str) -> None:
        if "?" in pattern:
            raise InvalidRequest("a path pattern has a '?'", "leave the query out: rules are judged on the path")
        try:
            normal = canonical_target(pattern.encode())
        except (BadRequestFraming, UnicodeEncodeError) as error:
            raise InvalidRequest("a path pattern is not a path", "begin with '/', for example /v1/**") from error
        if len(readings(normal)) > 1:
            raise InvalidRequest("a path pattern could be read in more than one way", "write it plainly, or a '*'")
        self.pattern = pattern
        texts = normal.decode().split("/")[1:]
        self._segments = tuple(_compile_segment(text) for text in texts)
        folded = (tuple(_compile_segment(text, fold=fold) for text in texts) for fold in (_fold, _fold_bare))
        self._folded = tuple(dict.fromkeys(folded))

    def matches(self, path: str) -> bool:
        """Whether a path from ``readings`` is meant, exactly as written. For rules that allow."""
        return _match(self._segments, path.split("/")[1:])

    def denies(self, path: str) -> bool:
        """Whether any upstream could read this path as one that is meant. For rules that deny.

        Case, width and invisible characters do not count, nor do ``;parameters``, dots and spaces at the end of a
        segment, and a slash at the end of the path. What is meant as it is written always is.
        """
        if self.matches(path):  # also a segment of nothing but what does not count
            return True
        plain = [_fold(segment) for segment in path.split("/")[1:]]
        bare = [_strip(segment) for segment in plain]
        for segments in (plain, bare) if bare != plain else (plain,):
            if any(_match(pattern, segments) for pattern in self._folded):
                return True
            if len(segments) > 1 and not segments[-1] and any(_match(one, segments[:-1]) for one in self._folded):
                return True
        return False

    @property
    def specificity(self) -> tuple[int, int, int, int]:
        """Sorts patterns that match the same path; the greater one is the more specific.

        A pattern without wildcards first, then by the literal characters before the first wildcard, then by fewer
        ``**``, then by all literal characters.
        """
        crossing = sum(segment is None for segment in self._segments)
        stars = sum(len(segment) - 1 for segment in self._segments if segment is not None)
        head = 0
        for segment in self._segments:
            if segment is None:
                break
            head += 1 + len(segment[0])
            if len(segment) > 1:
                break
        total = sum(1 + sum(map(len, segment)) for segment in self._segments if segment is not None)
        return (int(not crossing and not stars), head, -crossing, total)

    def __repr__(self) -> str:
        return f"PathGlob({self.pattern!r})"


# One segment of a pattern: the literal pieces between its stars, or ``None`` for ``**``.
_Segment = tuple[str, ...] | None


def _compile_segment(text: str, *, fold: Callable[[str], str] = str) -> _Segment:
    if text == "**":
        return None
    if "**" in text:
        raise InvalidRequest(
            "a path pattern has '**' beside other characters", "make '**' a segment of its own: /v1/**"
        )
    # A noncharacter holds the place of a star, because an encoded star is a literal one.
    return tuple(fold(unquote_to_bytes(text.replace("*", _STAR)).decode()).split(_STAR))


def _fold(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    return text if text.isascii() else _visible(text)


def _strip(segment: str) -> str:
    return segment.partition(";")[0].rstrip(". ")


def _fold_bare(text: str) -> str:
    return _strip(_fold(text))


def _visible(text: str) -> str:
    return "".join(char for char in text if char == _STAR or not is_invisible(char))


def _match(pattern: Sequence[_Segment], segments: Sequence[str]) -> bool:
    """Match greedily, going back only to the last ``**``: the leftmost match of what stands before it is enough."""
    at = place = 0
    back_at, back_place = -1, 0
    final = len(pattern) - 1
    while place < len(segments):
        if at <= final and (part := pattern[at]) is None:
            if at == final:
                return True
            back_at, back_place = at, place
            at += 1
        elif at <= final and part is not None and _match_segment(part, segments[place]):
            at += 1
            place += 1
        elif back_at >= 0:
            back_place += 1
            at, place = back_at + 1, back_place
        else:
            return False
    return at > final


def _match_segment(pieces: tuple[str, ...], text: str) -> bool:
    if len(pieces) == 1:
        return pieces[0] == text
    head, *middle, tail = pieces
    if not text or len(text) < len(head) + len(tail) or not text.startswith(head) or not text.endswith(tail):
        return False
    return _in_order(middle, text[len(head) : len(text) - len(tail)])


def _in_order(pieces: Iterable[str], text: str) -> bool:
    at = 0
    for piece in pieces:
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True
