"""Keys in the shape that their makers publish. None of these was ever a key: they are made of a few letters."""

import itertools
import json


def alnum(count: int) -> str:
    return "".join(itertools.islice(itertools.cycle("A1b2C3d4"), count))


def hexa(count: int) -> str:
    return "".join(itertools.islice(itertools.cycle("a1b2c3d4"), count))


def upper(count: int) -> str:
    return alnum(count).upper()


def uuid() -> str:
    return "-".join(hexa(count) for count in (8, 4, 4, 4, 12))


def jwt() -> str:
    return f"eyJ{alnum(17)}.{alnum(60)}.{alnum(43)}"


def account() -> str:
    return json.dumps({"type": "service_account", "private_key": f"-----BEGIN PRIVATE KEY-----\n{alnum(1600)}\n"})


# The key, or the fields of a credential.
EXAMPLES: dict[str, str | dict[str, str]] = {
    "airtable": f"pat{alnum(14)}.{hexa(64)}",
    "algolia": hexa(32),
    "anthropic": f"sk-ant-api03-{alnum(92)}-AA",
    "apify": f"apify_api_{alnum(36)}",
    "asana": f"2/1200000000000000/1200000000000001:{hexa(32)}",
    "assemblyai": hexa(32),
    "atlassian": f"ATATT3xFfGF0{alnum(171)}={upper(8)}",
    "aws": {
        "access_key_id": f"AKIA{upper(16)}",
        "secret_access_key": f"{alnum(20)}/{alnum(18)}+",
        "session_token": f"IQoJb3JpZ2luX2Vj{alnum(300)}==".replace("_", "/"),
    },
    "azure": f"{alnum(3)}8Q~{alnum(34)}",
    "azure-devops": alnum(84),
    "bitbucket": f"ATATT3xFfGF0{alnum(171)}={upper(8)}",
    "box": alnum(32),
    "brave-search": f"BSA{alnum(28)}",
    "browserbase": f"bb_live_{alnum(27)}",
    "buildkite": f"bkua_{hexa(40)}",
    "calendly": jwt(),
    "cerebras": f"csk-{hexa(48)}",
    "circleci": f"CCIPAT_{alnum(22)}_{hexa(40)}",
    "clickup": f"pk_12345678_{upper(32)}",
    "cloudflare": alnum(40),
    "codecov": {"api_token": uuid(), "upload_token": uuid()},
    "cohere": alnum(40),
    "datadog": {"api_key": hexa(32), "application_key": hexa(40)},
    "deepgram": hexa(40),
    "deepseek": f"sk-{hexa(32)}",
    "digitalocean": f"dop_v1_{hexa(64)}",
    "discord": f"{alnum(26)}.{alnum(6)}.{alnum(38)}",
    "docker-hub": f"dckr_pat_{alnum(27)}",
    "doppler": f"dp.pt.{alnum(43)}",
    "dropbox": f"sl.u.{alnum(130)}",
    "elevenlabs": f"sk_{hexa(48)}",
    "exa": uuid(),
    "figma": f"figd_{alnum(40)}",
    "firecrawl": f"fc-{hexa(32)}",
    "fireworks": f"fw_{alnum(24)}",
    "fly": f"FlyV1 fm2_lJPE{alnum(300)},fm2_{alnum(300)}",
    "gcp": account(),
    "github": f"ghp_{alnum(36)}",
    "github-app": f"-----BEGIN RSA PRIVATE KEY-----\n{alnum(1600)}==\n-----END RSA PRIVATE KEY-----\n",
    "github-enterprise": f"ghp_{alnum(36)}",
    "gitlab": f"glpat-{alnum(20)}",
    "gitlab-self-managed": f"glpat-{alnum(20)}",
    "google-ai": f"AIza{alnum(35)}",
    "grafana": f"glsa_{alnum(32)}_{hexa(8)}",
    "groq": f"gsk_{alnum(52)}",
    "heroku": f"HRKU-{alnum(60)}",
    "hetzner": alnum(64),
    "hubspot": f"pat-eu1-{uuid()}",
    "huggingface": f"hf_{alnum(34)}",
    "intercom": f"dG9r{alnum(56)}=",
    "jina": f"jina_{alnum(60)}",
    "langfuse": f"sk-lf-{uuid()}",
    "langsmith": f"lsv2_pt_{hexa(32)}_{hexa(10)}",
    "linear": f"lin_api_{alnum(40)}",
    "linode": hexa(64),
    "mailgun": f"{hexa(32)}-{hexa(8)}-{hexa(8)}",
    "mapbox": f"pk.eyJ{alnum(60)}.{alnum(22)}",
    "mistral": alnum(32),
    "monday": jwt(),
    "mongodb-atlas": uuid(),
    "neon": f"napi_{hexa(64)}",
    "netlify": f"nfp_{alnum(36)}",
    "newrelic": f"NRAK-{upper(27)}",
    "notion": f"ntn_{alnum(46)}",
    "npm": f"npm_{alnum(36)}",
    "nvidia": f"nvapi-{alnum(64)}",
    "openai": f"sk-proj-{alnum(74)}T3BlbkFJ{alnum(74)}",
    "openrouter": f"sk-or-v1-{hexa(64)}",
    "openweather": hexa(32),
    "pagerduty": f"u+{alnum(18)}",
    "perplexity": f"pplx-{alnum(48)}",
    "pinecone": f"pcsk_{alnum(6)}_{alnum(63)}",
    "plaid": hexa(30),
    "posthog": f"phx_{alnum(47)}",
    "postman": f"PMAK-{hexa(24)}-{hexa(34)}",
    "postmark": uuid(),
    "pulumi": f"pul-{hexa(40)}",
    "pypi": f"pypi-AgEIcH{alnum(160)}",
    "qdrant": jwt(),
    "railway": uuid(),
    "render": f"rnd_{alnum(28)}",
    "replicate": f"r8_{alnum(37)}",
    "resend": f"re_{alnum(8)}_{alnum(24)}",
    "sendgrid": f"SG.{alnum(22)}.{alnum(43)}",
    "sentry": f"sntryu_{hexa(64)}",
    "serpapi": hexa(64),
    "shopify": f"shpat_{hexa(32)}",
    "slack": f"xoxb-123456789012-123456789012-{alnum(24)}",
    "snyk": uuid(),
    "sonarcloud": hexa(40),
    "square": f"EAAAl{alnum(59)}",
    "stripe": f"sk_live_{alnum(99)}",
    "supabase": f"sb_secret_{alnum(22)}_{alnum(8)}",
    "supabase-management": f"sbp_{hexa(40)}",
    "tavily": f"tvly-dev-{alnum(32)}",
    "telegram": f"123456789:AAH{alnum(32)}",
    "terraform-cloud": f"{alnum(14)}.atlasv1.{alnum(67)}",
    "todoist": hexa(40),
    "together": hexa(64),
    "trello": {"api_key": hexa(32), "token": f"ATTA{hexa(72)}"},
    "twilio": hexa(32),
    "upstash-redis": f"AX{alnum(54)}==",
    "vercel": alnum(24),
    "voyage": f"pa-{alnum(43)}",
    "wandb": f"wandb_v1_{alnum(77)}",
    "xai": f"xai-{alnum(80)}",
    "zendesk": alnum(40),
}
