"""The routes of engines that somebody mounts answer as the OpenAPI document says, whatever is asked of them."""

from compat import fuzz

ENGINES = (("kv", {"version": "1"}), ("kv", {"version": "2"}), ("totp", {}), ("ssh", {}), ("pki", {}))


def test_made_up_requests_get_no_server_error_and_the_answers_that_are_described(vault, monkeypatch):
    client = vault.hvac()
    for number, (kind, options) in enumerate(ENGINES):
        client.sys.enable_secrets_engine(kind, path=f"made-{number}", options=options)
    client.write_data("made-3/config/ca", data={"key_type": "ed25519"})
    client.write_data("made-4/root/generate/internal", data={"common_name": "Root", "key_type": "ec"})
    client.write_data("made-4/roles/x", data={"allow_any_name": True, "key_type": "ec"})
    every = fuzz.operations
    monkeypatch.setattr(fuzz, "operations", lambda *about: [o for o in every(*about) if o.path.startswith("/made-")])
    assert len(fuzz.operations(vault.url, vault.token)) > 100
    assert fuzz.fuzz(vault.url, vault.token, examples=2) == []
