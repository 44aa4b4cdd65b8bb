"""What each client needs in `keyhole run`: the rows of docs/clients.md.

Each stands for the tests that are marked with its name.
"""

from dataclasses import dataclass

WORKS, NEEDS = "works", "needs a hand"


@dataclass(frozen=True)
class Row:
    """Where its version is pinned (a package of PyPI or npm) or the version itself, what it needs, and a remark."""

    package: str
    needs: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        return NEEDS if self.needs else WORKS


ROWS = {
    "curl": Row("7.88"),
    "wget": Row("1.21", note='with a `.wgetrc` of your own: `--ca-certificate="$SSL_CERT_FILE"`'),
    "git": Row("2.39", note="clone and push over HTTPS, 50 MiB each way; over ssh it goes around the broker"),
    "urllib": Row("Python 3.11"),
    "urllib3": Row("python:urllib3", "`ProxyManager` and `ca_certs`: it reads no variables"),
    "requests": Row("dev:requests"),
    "httpx2": Row("dev:httpx2"),
    "aiohttp": Row("python:aiohttp", "`ClientSession(trust_env=True)`"),
    "fetch of Node": Row("Node 22", note="Node before 22 ignores the proxy variables"),
    "axios": Row("node:axios"),
    "net/http of Go": Row("1.19", note="elsewhere than on Linux Go trusts the system's certificates only"),
    "grpc-go": Row("1.33", note="see [gRPC](grpc.md)"),
    "reqwest of Rust": Row("0.11", note="on OpenSSL; on rustls with webpki-roots it trusts a list of its own only"),
    "HttpClient of Java": Row("17", note="on Linux; it says `Picked up JAVA_TOOL_OPTIONS` on its error output"),
    "Chromium": Row(
        "156", "our certificate in its store, and `--no-sandbox`, as in every container", "on Linux; see below"
    ),
    "npm": Row("11", note="what asks for a login, as `whoami`, wants a line `_authToken` with any text"),
    "pip": Row("python:pip"),
    "uv": Row("python:uv"),
    "cargo": Row("1.95", note="sparse registries"),
    "aws": Row("python:awscli", note="`sts`, and `s3 cp` in parts"),
    "boto3": Row("dev:boto3", note="S3, DynamoDB, STS, presigned URLs"),
    "google-auth": Row("python:google-auth", note="`GOOGLE_APPLICATION_CREDENTIALS` names a file of `run`"),
    "msal": Row("python:msal", note="client credentials"),
    "OpenAI SDK for Python": Row("python:openai", note="with streams"),
    "OpenAI SDK for Node": Row("node:openai", note="with streams"),
    "Anthropic SDK for Python": Row("python:anthropic", note="with streams"),
    "Anthropic SDK for Node": Row("node:@anthropic-ai/sdk", note="with streams"),
    "Stripe SDK for Python": Row(
        "python:stripe", '`stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]`: it trusts a list of its own'
    ),
    "Stripe SDK for Node": Row(
        "node:stripe", "`httpClient: Stripe.createFetchHttpClient()`: Node before 24 knows a proxy in `fetch` only"
    ),
    "AgentSecrets SDK": Row("python:agentsecrets", note="on Linux; see [AgentSecrets](agentsecrets.md)"),
    "Octokit": Row("node:@octokit/core", note="GitHub's own client"),
}
