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
