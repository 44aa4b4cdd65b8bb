"""`keyhole run`: what its command does is of one run and one trace, through the proxy and the port for AgentSecrets."""

import json
import sys

from e2e.world import KEY, held

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
WORK = r"""
import os, sys, urllib.request
assert os.environ["TRACEPARENT"] == sys.argv[2] and not [name for name in os.environ if name.startswith("KEYHOLE_")]
urllib.request.urlopen(sys.argv[1] + "/v1/one").read()
nearer = sys.argv[2].replace("00f067aa0ba902b7", "1" * 16)
claims = {"traceparent": nearer, "X-Keyhole-Context": "run=another;step=stolen;tool=bank"}
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/v1/two", headers=claims)).read()
port = os.environ["AGENTSECRETS_PORT"]
plain = urllib.request.build_opener(urllib.request.ProxyHandler({}))
asked = {"X-AS-Target-URL": sys.argv[1] + "/v1/three", "X-AS-Inject-Bearer": "API_KEY"} | {"X-Keyhole-Context": "run=x"}
plain.open(urllib.request.Request(f"http://127.0.0.1:{port}/proxy", headers=asked)).read()
"""


def test_a_command_is_one_run_whatever_it_says(world):
    words = (sys.executable, "-c", WORK, world.base, PARENT)
    world.run(*words, KEYHOLE_RUN="4711", KEYHOLE_WORKFLOW="nightly", TRACEPARENT=PARENT)
    found = json.loads(world.keyhole("audit", "uses", "--trace", PARENT, "--json").stdout)
    assert [(use["target"], use["result"], use["span"]) for use in found] == [
        ("/v1/one", "ok", SPAN),
        ("/v1/two", "ok", "1" * 16),
        ("/v1/three", "ok", SPAN),
    ]
    assert {(use["workflow"], use["run"], use["agent"], *use["secrets"]) for use in found} == {
        ("nightly", "4711", "agent/coder", "api/key")
    }
    assert {use["tool"] for use in found} == {sys.executable.rpartition("/")[2]}
    assert [use.get("step", "") + use.get("claimed", "") for use in found] == ["", "stolenstep", ""]
    assert not held(KEY, json.dumps(found).encode())
