"""For every importer a file with some of everything, and the values that must not stay in it."""

import base64
import json

from keyhole.importers import MANAGERS, MEMBERS

KEY = "sk_live_51Sample0000000000000000"
TOKEN = "ghp_" + "S" * 36
WORD = "correct-horse-7"


def b64(text):
    return base64.b64encode(text.encode()).decode()


_DOTENV = f"""# settings
export STRIPE_API_KEY={KEY}   # the live one
GITHUB_TOKEN='{TOKEN}'
DB_PASSWORD="{WORD}\\n"
PORT=3000
EMPTY=
OTHER=${{STRIPE_API_KEY}}
"""
_NPMRC = f"""registry=https://registry.example/
//registry.example/:_authToken={TOKEN}
//other.example/path/:username=me
//other.example/path/:_password={b64(WORD)}
//third.example/:_auth="{b64("me:" + KEY)}"
//fourth.example/:_authToken=${{NPM_TOKEN}}
; done
"""
_PIP = f"""[global]
index-url = https://me:{WORD}@pip.example/simple
extra-index-url =
    https://pip.example/plain
    https://{TOKEN}@second.example:8443/simple
"""
_NETRC = f"""machine api.example
  login me password {WORD}
machine two.example login me password "{KEY}"
macdef init
  echo machine evil.example password nothing

default login anonymous password guest
"""
_AWS = f"""[default]
aws_access_key_id = AKIASAMPLE0000000000
aws_secret_access_key = {"s/" * 20}
[role]
role_arn = arn:aws:iam::1:role/x
source_profile = default
[short]
aws_access_key_id=ASIASAMPLE0000000000
aws_secret_access_key={"t+" * 20}
aws_session_token={"u=" * 40}
"""
_DOCKER = json.dumps(
    {
        "auths": {
            "https://index.docker.io/v1/": {"auth": b64(f"me:{WORD}")},
            "ghcr.example": {"auth": b64("me:"), "identitytoken": TOKEN},
            "kept.example": {},
        },
        "credsStore": "desktop",
    },
    indent="\t",
)
_GIT = f"https://me:{WORD}%21@git.example\nhttps://{TOKEN}@token.example/path\n"
_MCP = f"""{{
  // what VS Code allows
  "mcpServers": {{
    "github": {{
      "command": "docker",
      "args": ["run", "-e", "MODE=read", "--api-key", "{KEY}", "--token={TOKEN}", "--header", "X-Api-Key: {WORD}"],
      "env": {{"GITHUB_PERSONAL_ACCESS_TOKEN": "{TOKEN}", "PORT": "1", "LATER": "${{input:x}}"}},
    }},
    "remote": {{"url": "https://mcp.example/?api_key={KEY}", "headers": {{"Authorization": "Bearer {WORD}é"}}}}
  }},
}}
"""

SAMPLES = {
    "dotenv": _DOTENV.encode(),
    "environ": f"STRIPE_API_KEY={KEY}\0HOME=/root\0".encode(),
    "command": f"{TOKEN}\n".encode(),
    "npmrc": _NPMRC.encode(),
    "pip": _PIP.encode(),
    "netrc": _NETRC.encode(),
    "aws": _AWS.encode(),
    "docker": _DOCKER.encode(),
    "git": _GIT.encode(),
    "mcp": _MCP.encode(),
}
VALUES = [KEY, TOKEN, WORD, "s/" * 20, "t+" * 20, "u=" * 40]
# What other managers of secrets write has its samples in test_managers.py.
assert SAMPLES.keys() == set(MEMBERS) - set(MANAGERS)


def hidden(text):
    """Does a text hold one of the values, as it is or in base64?"""
    forms = [*VALUES, *(b64(value)[:-4] for value in VALUES), *(b64("me:" + value)[:-4] for value in VALUES)]
    return [form for form in forms if form in text]
