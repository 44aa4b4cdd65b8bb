"""The first two commands of a user on a machine without a keychain: `keyhole add`, then `keyhole run`."""

from cli.test_terminal import Terminal
from cli_driver import environment

PASSPHRASE = "correct horse battery staple"
KEY = "sk_test_51ExampleExampleExample00"


def test_add_asks_for_a_new_passphrase_and_the_key_and_run_for_the_passphrase(tmp_path):
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"), HOME=str(tmp_path), TERM="xterm")
    env.pop("DBUS_SESSION_BUS_ADDRESS", None)  # no keychain
    env["XDG_RUNTIME_DIR"] = str(tmp_path)

    added = Terminal("add", "stripe", env=env)
    added.until("New passphrase: ")
    added.type(f"{PASSPHRASE}\n")
    added.until("The same again: ")
    added.type(f"{PASSPHRASE}\n")
    added.until("The key for Stripe: ")
    added.type(f"{KEY}\n")
    assert added.end() == 0, added.seen
    assert "Nobody can recover this passphrase" in added.seen
    assert "now: keyhole run -- COMMAND" in added.seen
    assert "Passphrase of the vault" not in added.seen
    assert KEY not in added.seen
    assert PASSPHRASE not in added.seen

    given_up = Terminal("list", env=env)
    given_up.until("Passphrase of the vault: ")
    given_up.type("\x03")
    assert given_up.end() == 130

    started = Terminal("run", "--", "sh", "-c", "echo it is $STRIPE_API_KEY", env=env)
    started.until("Passphrase of the vault: ")
    started.type(f"{PASSPHRASE}\n")
    started.until("it is sk_test_keyhole")
    assert started.end() == 0, started.seen
    assert started.seen.count("Passphrase of the vault") == 1


def test_add_asks_for_the_site_and_for_every_field_and_shows_no_key(tmp_path):
    env = environment(KEYHOLE_HOME=str(tmp_path / "home"), HOME=str(tmp_path), TERM="xterm")
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    env["KEYHOLE_SEAL"] = f"keyfile:{tmp_path / 'key'}"
    token = "ATATT" + "x9Y8" * 40

    site = Terminal("add", "atlassian", env=env)
    site.until("Your site, as in SITE.atlassian.net: ")
    site.type("acme\n")
    site.until("E-mail address of your account: ")
    site.type("me@acme.example\n")
    site.until("The key for Atlassian (Jira, Confluence): ")
    site.type(f"{token}\n")
    assert site.end() == 0, site.seen
    assert "bound to acme.atlassian.net" in site.seen
    assert token not in site.seen

    fields = Terminal("add", "aws", env=env)
    fields.until("Region: us-east-1; say another with --host")
    fields.until("Amazon Web Services, Access key ID: ")
    fields.type("AKIA" + "A1B2" * 4 + "\n")
    fields.until("Amazon Web Services, Secret access key: ")
    fields.type("a1B2" * 10 + "\n")
    fields.until("Amazon Web Services, Session token, or nothing: ")
    fields.type("\n")
    assert fields.end() == 0, fields.seen
    assert "look like" not in fields.seen
    assert "a1B2" * 10 not in fields.seen
