"""WebSocket frames, and the messages of databases: where each ends is the same for every reader, however it arrives."""

import struct

from websockets import frames as theirs
from websockets.exceptions import ProtocolError
from websockets.streams import StreamReader

from fuzzing.engine import Target, cut, refused
from keyhole.core.errors import BadRequestFraming, KeyholeError
from keyhole.net.mysql import login as mysql_login
from keyhole.net.mysql import packets
from keyhole.net.mysql.talk import MysqlTalk
from keyhole.net.postgres import login as postgres_login
from keyhole.net.postgres import messages
from keyhole.net.postgres.frames import OF_CLIENT, OF_SERVER, Frames
from keyhole.net.postgres.talk import PostgresTalk
from keyhole.net.websocket.frames import CONTINUATION, FrameError, FrameLimits, FrameReader, encode

LIMITS = FrameLimits(frame=2000, message=3000, fragments=6)
PASSWORD = b"pw-canary-7Hq4LyjWDarj"


def plain_frames(data, *, masked):
    """Frames as RFC 6455 has them, one after the other, up to one that is wrong: opcode, end and payload of each."""
    found, message, size, count, left = [], 0, 0, 0, data
    while len(left) >= 2:
        first, second, opcode = left[0], left[1], left[0] & 15
        length, at = second & 127, 2
        if _is_wrong(first, message) or bool(second & 128) is not masked or (opcode & 8 and length > 125):
            return found, "wrong"
        for marker, form, least in ((126, ">H", 126), (127, ">Q", 65536)):
            if second & 127 == marker:
                at += struct.calcsize(form)
                if len(left) < at:
                    return found, "waits"
                [length] = struct.unpack(form, left[2:at])
                if length < least or length >> 63:
                    return found, "wrong"
        key = left[at : at + 4] if masked else b"\0\0\0\0"
        at += 4 if masked else 0
        if len(left) < at:
            return found, "waits"
        if not opcode & 8:
            size, count = size + length, count + 1
            if length > LIMITS.frame or size > LIMITS.message or count > LIMITS.fragments:
                return found, "wrong"
        if len(left) < at + length:
            return found, "waits"
        payload = bytes(byte ^ key[place % 4] for place, byte in enumerate(left[at : at + length]))
        if opcode == 8 and (length == 1 or (length and not _code(int.from_bytes(payload[:2])))):
            return found, "wrong"
        found.append((opcode, bool(first & 128), payload))
        left = left[at + length :]
        if opcode == 8:
            return found, "closed"
        if not opcode & 8:
            message = 0 if first & 128 else message or opcode
            size, count = (0, 0) if first & 128 else (size, count)
    return found, "wrong" if left and _is_wrong(left[0], message) else "waits"


def _is_wrong(first, message):
    opcode = first & 15
    if first & 0x70 or opcode not in {0, 1, 2, 8, 9, 10}:
        return True
    return not first & 128 if opcode & 8 else (opcode == 0) is not bool(message)


def _code(code):
    return code in {*range(1000, 1004), *range(1007, 1015)} or 3000 <= code < 5000


class WebSocket(Target):
    """Both directions of a WebSocket."""

    words = (
        b"\x81\x00", b"\x01\x05hello", b"\x80\x00", b"\x88\x02\x03\xe8", b"\x89\x00", b"\x81\x7e\x00\x7e",
        b"\x81\xfe", b"\x82\x7f", b"\x81\x85abcd", b"\0" * 8, b"\x80\x80abcd", b"\x08\x00", b"\xc1\x00", b"\x00\x01a",
        b"\x8a\x81abcdx", b"\x03\xed",
    )  # fmt: skip

    def corpus(self):
        made = [
            [encode(1, b"hello")],
            [encode(1, b"he", fin=False), encode(9, b"ping"), encode(CONTINUATION, b"llo")],
            [encode(2, bytes(130)), encode(8, b"\x03\xe8bye"), encode(1, b"late")],
            [encode(2, bytes(1000), fin=False), encode(0, bytes(900))],
        ]
        masked = [
            [encode(1, b"hello", mask=b"abcd"), encode(1, b"", mask=b"\0\0\0\0")],
            [
                encode(2, bytes(200), fin=False, mask=b"1234"),
                encode(0, b"x", mask=b"wxyz"),
                encode(8, b"", mask=b"aaaa"),
            ],
        ]
        return [b"".join(each) for each in (*made, *masked)]

    def check(self, data, rng):
        masked = len(data) > 1 and bool(data[1] & 128)
        expected = plain_frames(data, masked=masked)
        for pieces in ([data], cut(data, rng), cut(data, rng)):
            found = self._read(pieces, masked=masked)
            assert found == expected, f"another reading: {found} instead of {expected}"
        reader = StreamReader()
        reader.feed_data(data)
        for frame in expected[0]:
            other = self._theirs(reader, masked=masked)
            assert other in (None, frame), f"websockets reads another frame: {other} instead of {frame}"
        return f"{min(len(expected[0]), 4)} {expected[1]} {masked}"

    @staticmethod
    def _read(pieces, *, masked):
        reader, found, parts, kept = FrameReader(masked=masked, limits=LIMITS), [], b"", ()
        try:
            for piece in pieces:
                reader.add(piece)
                while (part := reader.next()) is not None:
                    parts = part.data if part.begins else parts + part.data
                    kept = (part.opcode if part.opens or part.control else CONTINUATION, part.fin)
                    if part.ends:
                        assert len(parts) == part.length
                        found.append((*kept, parts))
        except FrameError:
            return found, "wrong"
        return found, "closed" if reader.closed else "waits"

    @staticmethod
    def _theirs(reader, *, masked):
        reading = theirs.Frame.parse(reader.read_exact, mask=masked, max_size=None)
        try:
            next(reading)
        except StopIteration as done:
            frame = done.value
            return int(frame.opcode), frame.fin, bytes(frame.data)
        except ProtocolError:
            pass
        return None


def plain_messages(data, known):
    """PostgreSQL's messages as its documentation has them: how many of each, where the last whole one ends."""
    counts, at, last = {}, 0, 0
    while at < len(data):
        if data[at] not in known:
            return None
        if len(data) < at + 5:
            break
        length = int.from_bytes(data[at + 1 : at + 5])
        if not 4 <= length <= messages.MAX_MESSAGE:
            return None
        counts[data[at]] = counts.get(data[at], 0) + 1
        at += 1 + length
        if at <= len(data):
            last = at
    return counts, last


class Sql(Target):
    """PostgreSQL and MySQL: sessions, and what either side says before one."""

    words = (
        b"Q\0\0\0\x0dselect 1\0", b"X\0\0\0\x04", b"R\0\0\0\x08\0\0\0\0", b"R\0\0\0\x08\0\0\0\x03",
        b"R\0\0\0\x0c\0\0\0\x05abcd", b"Z\0\0\0\x05I", b"S\0\0\0\x08a\0b\0", b"p\0\0\0\x06pw", b"\0\0\0\x04",
        b"\0\0\0\x03", b"\xff\xff\xff", b"\x01\0\0\0\x01", b"\x06\0\0\0\x03select",
        b"\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0", b"mysql_native_password\0", b"caching_sha2_password\0",
        b"mysql_clear_password\0", b"\xfe", b"\x01\x04", b"\x01\x03", b"r=", b",s=QSXCR+Q6sek8bf92,i=4096", b"v=",
        b"\0" * 8, b"\xfc",
    )  # fmt: skip

    def corpus(self):
        startup = messages.startup([(b"user", b"me"), (b"database", b"shop"), (b"_pq_.x", b"1")])
        greeting = packets.greeting(7, bytes(range(1, 21)), tls=True)
        said = packets.Response(
            packets.OWN | packets.CONNECT_WITH_DB, 45, b"me", b"x" * 20, b"shop", packets.NATIVE, b""
        )
        return [
            *self.words[:9],
            startup,
            greeting,
            packets.response(said),
            b"".join(
                messages.message(kind, payload)
                for kind, payload in ((b"R", b"\0\0\0\0"), (b"K", b"12345678"), (b"Z", b"I"))
            ),
            messages.message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")
            + messages.message(b"R", b"\0\0\0\x0br=abc,s=QSXCR+Q6,i=4096"),
            packets.packet(0, b"\x03select 1") + packets.packet(0, b"\x01") + packets.packet(1, b""),
            b"\xfe" + packets.CACHING + b"\0" + bytes(range(1, 21)) + b"\0",
        ]

    def check(self, data, rng):
        outcome = [self._postgres(data, rng, OF_CLIENT), self._postgres(data, rng, OF_SERVER), self._mysql(data, rng)]
        for read in (self._startup, packets.read_greeting, packets.read_response, self._error):
            try:
                read(data)
            except KeyholeError as error:
                refused(error)
            else:
                outcome.append(read.__name__)
        outcome += [self._log_in(data, secure=secure) for secure in (False, True)]
        return " ".join(outcome)

    @staticmethod
    def _startup(data):
        if len(data) >= 8 and messages.startup_length(data[:4]) == len(data):
            found = messages.read_startup(data)
            if found.parameters and found.code == messages.VERSION:
                assert messages.startup(found.parameters) == data
            assert all(name for name, _ in found.parameters)

    @staticmethod
    def _error(data):
        for state in (messages.error_state(data), packets.error_state(data)):
            assert state == "" or (len(state) == 5 and state.isalnum() and state.isascii()), "that is no SQLSTATE"

    @staticmethod
    def _postgres(data, rng, known):
        expected = plain_messages(data, known)
        for pieces in ([data], cut(data, rng)):
            frames, last, at = Frames(known), 0, 0
            try:
                for piece in pieces:
                    end = frames.follow(piece)
                    last = at + end if end else last
                    at += len(piece)
                found = dict(frames.seen), last
                assert frames.partial is (last != len(data))
            except BadRequestFraming:
                found = None
            assert found == expected, f"another reading: {found} instead of {expected}"
        talk = PostgresTalk()
        try:
            (talk.of_client if known is OF_CLIENT else talk.of_server)(data)
        except KeyholeError as error:
            refused(error)
        return "-" if expected is None else str(min(sum(expected[0].values()), 3))

    @staticmethod
    def _mysql(data, rng):
        told = set()
        for pieces in ([data], cut(data, rng)):
            talk, said = MysqlTalk(), ""
            try:
                for piece in pieces:
                    talk.of_client(piece)
            except KeyholeError as error:
                said = refused(error)
            told.add((said, *(() if said else (talk.statements, talk.parting, talk.sending))))
            other, last, at = MysqlTalk(), 0, 0
            for piece in pieces:
                end = other.of_server(piece)
                last = at + end if end else last
                at += len(piece)
            assert last == _last_packet(data), "another packet is the last one"
        assert len(told) == 1, f"it depends on how it arrives: {told}"
        return told.pop()[0][:24]

    @staticmethod
    def _log_in(data, *, secure):
        """A server that says these things gets no password without TLS."""
        made = postgres_login.Login(b"me", PASSWORD, (), secure, b"\1" * 32 if secure else b"", bytes(18))
        heard = [(part[:1], part[1:]) for part in data.split(b"\n") if part]
        plain = mysql_login.Login(b"me", PASSWORD, b"", packets.PASSED, 45, b"", secure)
        greeting = packets.Greeting(1, packets.PASSED | packets.OWN, bytes(20))
        ended = ""
        for talk, said in (
            (postgres_login.log_in(made), heard),
            (mysql_login.log_in(plain, greeting), data.split(b"\n")),
        ):
            sent = b""
            try:
                sent += next(talk)
                for message in said:
                    sent += talk.send(message)
            except KeyholeError as error:
                ended = refused(error)
            except StopIteration:
                ended = "logged in"
            assert secure or PASSWORD not in sent, "the password is sent without TLS"
        return ended


def _last_packet(data):
    at = 0
    while len(data) >= at + 4 and len(data) >= (end := at + 4 + int.from_bytes(data[at : at + 3], "little")):
        at = end
    return at
