"""A program that reads its key from a file goes on working once the key has moved into the vault."""

import base64
import json

from e2e.world import API, KEY


def _bound(world, name, secret, *how):
    host = f"{API}:{world.upstream.port}"
    world.keyhole("service", "add", name, "--host", host, "--allow-address", "127.0.0.1/32", "--secret", secret, *how)
    world.keyhole("agent", "add", "mover")
    world.keyhole("grant", "mover", name)


def test_placeholders_in_files_lead_to_the_same_calls_as_the_keys_before(world):
    work = world.folder / "work"
    escaped = KEY.replace('"', '\\"')
    (work / "moved.env").write_text(f'ACME_KEY="{escaped}"\n')
    (work / "moved.netrc").write_text(f"machine {API} login me password hunter22-hunter22\n")
    for name in ("moved.env", "moved.netrc"):
        (work / name).chmod(0o600)
    world.keyhole("import", "moved.env", "--under", "moved", "--placeholders")
    world.keyhole("import", "file", "moved.netrc", "--kind", "netrc", "--no-services", "--placeholders")
    assert KEY not in (work / "moved.env").read_text()
    assert "hunter22" not in (work / "moved.netrc").read_text()

    _bound(world, "moved-key", "moved/acme-key", "--bearer", "--path", "/v1/moved", "--variable", "ACME_KEY")
    _bound(world, "moved-login", f"netrc/{API}", "--basic", "--path", "/echo")
    script = '. ./moved.env; curl -sSf -H "Authorization: Bearer $ACME_KEY" "$0/v1/moved"'
    done = world.keyhole("run", "--agent", "mover", "--", "sh", "-c", script, world.base)
    assert json.loads(done.stdout)["ok"] is True
    command = ("curl", "-sSf", "--netrc-file", "moved.netrc", f"{world.base}/echo")
    world.keyhole("run", "--agent", "mover", "--", *command)
    login = base64.b64encode(b"me:hunter22-hunter22").decode()
    last = [seen for seen in world.upstream.seen if seen.path == "/echo"][-1]
    assert last.headers["Authorization"] == f"Basic {login}"
