"""SSH access, as Vault's engine of that name: certificates of an authority that servers trust, or one-time passwords.

Nothing is copied to a server when somebody comes or goes: it knows the authority's public key, or asks here.
Certificates end by themselves and have no lease.
"""

from __future__ import annotations

from keyhole.core.request import Operation
from keyhole.engines import Engine, Field, Handler, Route
from keyhole.engines.settings import fields
from keyhole.engines.ssh import authority, otp, roles, signing


def _write(pattern: str, handler: Handler, help_text: str, *about: Field, is_open: bool = False) -> Route:
    return Route(pattern, {Operation.CREATE: handler}, open=is_open, fields=about, help=help_text)


_CERTIFICATE = (
    Field("valid_principals", "names for which it counts, with commas", "string"),
    Field("cert_type", "user or host; user when it is not said", "string"),
    Field("ttl", "how long it lives", "duration"),
    Field("key_id", "what servers write into their logs", "string"),
    Field("critical_options", "map", "map"),
    Field("extensions", "map, such as permit-pty to an empty text", "map"),
)

ENGINE = Engine(
    "ssh",
    (
        Route(
            "config/ca",
            {
                Operation.CREATE: authority.configure,
                Operation.READ: authority.read,
                Operation.DELETE: authority.delete,
            },
            fields=(
                Field("generate_signing_key", "make the key pair here", "boolean"),
                Field("private_key", "PEM without a passphrase", "string"),
                Field("public_key", "the line of the .pub file", "string"),
                Field(
                    "key_type", "of a pair that is made here: ssh-rsa, ssh-ed25519, ecdsa-sha2-nistp256, …", "string"
                ),
                Field("key_bits", "of RSA: 2048, 3072 or 4096", "integer"),
            ),
            help="The key of the authority.",
        ),
        Route(
            "public_key",
            {Operation.READ: authority.read_raw},
            open=True,
            bare=True,
            help="Its public key, for servers.",
        ),
        Route(
            "config/zeroaddress",
            {
                Operation.CREATE: otp.write_anywhere,
                Operation.READ: otp.read_anywhere,
                Operation.DELETE: otp.delete_anywhere,
            },
            fields=(Field("roles", "names of roles", "list"),),
            help="Roles that give passwords for every address.",
        ),
        Route("roles", {Operation.LIST: roles.list_names}, help="Names of roles."),
        Route(
            "roles/{name}",
            {Operation.CREATE: roles.write, Operation.READ: roles.show, Operation.DELETE: otp.delete_role},
            fields=fields(
                tuple({s.name: s for s in (roles.KEY_TYPE, *roles.CA_SETTINGS, *roles.OTP_SETTINGS)}.values())
            ),
            help="Who may be given what.",
        ),
        _write(
            "sign/{name}",
            signing.sign,
            "A certificate for a public key.",
            Field("public_key", "the line of the .pub file", "string"),
            *_CERTIFICATE,
        ),
        _write(
            "issue/{name}",
            signing.issue,
            "A new key pair with its certificate.",
            Field("key_type", "rsa, ec or ed25519", "string"),
            Field("key_bits", "of that type", "integer"),
            *_CERTIFICATE,
        ),
        Route(
            "pair/{name}",
            {Operation.READ: signing.pair},
            help="A new Ed25519 pair with a certificate for the role's default user, as services lend it.",
            source="",
        ),
        _write(
            "creds/{name}",
            otp.create,
            "A password for one login.",
            Field("ip", "address of the host", "string"),
            Field("username", "user at the host", "string"),
        ),
        _write(
            "verify", otp.verify, "What a password is for, once.", Field("otp", "the password", "string"), is_open=True
        ),
        _write("lookup", otp.lookup, "Roles for an address.", Field("ip", "address of a host", "string")),
    ),
    revoke=otp.revoke,
)
