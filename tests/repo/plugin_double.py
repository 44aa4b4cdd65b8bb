"""A test double of an age plugin, not a real one: what it calls a public key is all of its secret.

Run as a program it speaks the age-plugin protocol, version 1, over stdin and stdout. As a module it puts that program
into a folder of the search path, and makes keys for it.
"""

import base64
import hashlib
import hmac
import os
import sys
from pathlib import Path

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
TAG = "keyhole-test-double"


def install(folder, name="double"):
    """The program as ``age-plugin-NAME`` in a folder."""
    folder.mkdir(exist_ok=True)
    program = folder / f"age-plugin-{name}"
    program.write_text(f"#!{sys.executable} -SE\n{Path(__file__).read_text()}")
    program.chmod(0o755)
    return program


def make_key(seed, name="double"):
    """Recipient and identity; the one of a seed that begins with ``ask`` asks for a PIN before it opens anything."""
    return bech32(f"age1{name}", seed), bech32(f"age-plugin-{name}-", seed).upper()


def bech32(prefix, data):
    words, bits, value = [], 0, 0
    for byte in data:
        value, bits = value << 8 | byte, bits + 8
        while bits >= 5:
            bits -= 5
            words.append(value >> bits & 31)
    if bits:
        words.append(value << (5 - bits) & 31)
    check = checksum([ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + words + [0] * 6) ^ 1
    return prefix + "1" + "".join(ALPHABET[each] for each in words + [check >> 5 * (5 - n) & 31 for n in range(6)])


def checksum(values):
    found = 1
    for value in values:
        top, found = found >> 25, (found & 0x1FFFFFF) << 5 ^ value
        for bit, part in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            found ^= part if top >> bit & 1 else 0
    return found


def data_of(text):
    words = [ALPHABET.index(each) for each in text.lower().rpartition("1")[2][:-6]]
    value = int("".join(f"{word:05b}" for word in words), 2)
    spare = len(words) * 5 % 8
    return (value >> spare).to_bytes(len(words) * 5 // 8, "big")


def receive():
    line = sys.stdin.readline()
    words, body = line.split()[1:], ""
    while True:
        part = sys.stdin.readline().rstrip("\n")
        body += part
        if len(part) < 64:
            return words, base64.b64decode(body + "=" * (-len(body) % 4))


def send(*words, body=b""):
    text = base64.b64encode(body).decode().rstrip("=")
    lines = [text[at : at + 64] for at in range(0, len(text) + 1, 64)]
    sys.stdout.write("-> " + " ".join(words) + "\n" + "\n".join(lines) + "\n")
    sys.stdout.flush()


def ask(*words, body=b""):
    send(*words, body=body)
    return receive()


def mask(seed, nonce, key):
    pad = hmac.digest(hashlib.sha256(seed).digest(), nonce, "sha256")
    return bytes(a ^ b for a, b in zip(key, pad, strict=False))


def wrap(seed, nonce, key):
    return mask(seed, nonce, key) + hmac.digest(seed, nonce + key, "sha256")


def unwrap(seed, nonce, body):
    key = mask(seed, nonce, body[:16])
    return key if body[16:] == hmac.digest(seed, nonce + key, "sha256") else None


def talk(machine):
    said = []
    while not said or said[-1][0][0] != "done":
        said.append(receive())
    texts = [words[1] for words, _ in said if words[0] in {"add-recipient", "add-identity"}]
    if machine == "recipient-v1":
        keys = [body for words, body in said if words[0] == "wrap-file-key"]
        for index, key in enumerate(keys):
            for text in texts:
                nonce, seed = os.urandom(16), data_of(text)
                argument = base64.b64encode(nonce).decode().rstrip("=")
                ask("recipient-stanza", str(index), TAG, argument, body=wrap(seed, nonce, key))
    for words, body in said if machine == "identity-v1" else ():
        if words[0] == "recipient-stanza" and words[2] == TAG:
            nonce = base64.b64decode(words[3] + "==")
            for text in texts:
                seed = data_of(text)
                key = unwrap(seed, nonce, body)
                if key is None:
                    continue
                if seed.startswith(b"ask"):
                    ask("msg", body=b"touch the double\x1b[2J")
                    (agreed, _), (_, who) = (
                        ask("confirm", "eWVz", "bm8", body=b"open it?"),
                        ask("request-public", body=b"your name"),
                    )
                    if (agreed, who) != (["ok", "yes"], b"ann"):
                        ask("error", "identity", "0", body=b"not confirmed")
                        continue
                    answer, pin = ask("request-secret", body=b"PIN of the double")
                    if answer[0] != "ok" or pin != b"2718":
                        ask("error", "identity", "0", body=b"wrong PIN")
                        continue
                ask("file-key", words[1], body=key)
                break
    send("done")


if __name__ == "__main__":
    talk(sys.argv[1].partition("=")[2])
