"""What a database says of statements with a password in them, without the password or parts of it."""

import pytest

from keyhole.engines.database.hiding import hidden

PASSWORD = "V2pO16zHCw3I-PMKoIN3a"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (f'near "{PASSWORD}"', 'near "[password]"'),
        (f"near {PASSWORD}", "near [password]"),
        (f"near {PASSWORD.lower()}", "near [password]"),
        ('unrecognized role option "v2po16zhcw3i"', 'unrecognized role option "[password]"'),
        ("near 'PMKoIN3a'", 'near "[password]"'),
        ('relation "users" does not exist', 'relation "users" does not exist'),
    ],
)
def test_no_part_of_a_password_is_told_in_any_case(words, told):
    assert hidden(words, [PASSWORD, ""]) == told
