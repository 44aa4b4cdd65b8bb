"""Tokens that say by their own form whose they are: cloud and infrastructure. After the documents of issuers."""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from .shape import Shape


def token(name: str, title: str, literal: str, pattern: str, *examples: str, **more: Any) -> Shape:
    """A token that begins with a literal; alternatives stand with a bar between them."""
    no = more.pop("no", ())
    return Shape(name, title, tuple(literal.split("|")), pattern, examples, no, **more)


def _is_jwt(match: re.Match[bytes]) -> bool:
    """Its header says how it is signed or sealed (RFC 7515 section 4.1.1); one that is not signed opens nothing."""
    head = match["head"]
    try:
        data = json.loads(base64.urlsafe_b64decode(head + b"=" * (-len(head) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(data, dict) and isinstance(data.get("alg"), str) and data["alg"].lower() != "none"


def _has_digit(match: re.Match[bytes]) -> bool:
    return any(0x30 <= byte <= 0x39 for byte in match[0][4:])


_GENERAL = (
    token(
        "jwt",
        "JSON Web Token",
        "eyj",
        r"(?P<head>(?>eyJ[A-Za-z0-9_-]{8,2048}))\.(?>[A-Za-z0-9_-]{4,8192})\.[A-Za-z0-9_-]{20,2048}",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIn0.<m43>",
        no=("eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.<m43>", "eyJ<m20>.<m20>.<m43>"),
        check=_is_jwt,
        run=("[A-Za-z0-9_-]", r"\.(?>[A-Za-z0-9_-]{4,8192})\.[A-Za-z0-9_-]{20,2048}(?![A-Za-z0-9_])"),
    ),
)

_CLOUD = (
    Shape(
        "aws-access-key",
        "access key of AWS",
        ("akia", "asia", "abia", "acca"),
        "(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",
        ('key = "AKIA<K16>"', "ASIA<K16>"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAXXXXXXXXXXXXXXXX", "A<K9>AKIA<K16>"),
        bits=2.5,
        entry="aws",
    ),
    token("bedrock-api-key", "API key of Amazon Bedrock", "absk", r"ABSK[A-Za-z0-9+/]{109,269}={0,2}", "ABSK<m128>="),
    token(
        "bedrock-short-key",
        "short-lived API key of Amazon Bedrock",
        "bedrock-api-key-",
        "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=_-]{20,4096}",
        "bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t<m200>",
        no=("bedrock-api-key-<m40>",),
        edge=False,
    ),
    token(
        "google-api-key",
        "API key of Google",
        "aiza",
        r"AIza[A-Za-z0-9_-]{35}",
        "AIza<m35>",
        entry="google-ai",
        bits=3.5,
    ),
    token("google-oauth-secret", "client secret of Google", "gocspx-", r"GOCSPX-[A-Za-z0-9_-]{28}", "GOCSPX-<m28>"),
    token("google-oauth-token", "access token of Google", "ya29.", r"ya29\.[A-Za-z0-9_-]{30,512}", "ya29.<m120>"),
    token("google-ai-key", "API key of Google", "aq.ab8r", r"AQ\.Ab8R[A-Za-z0-9_-]{30,80}", "AQ.Ab8R<m46>"),
    token(
        "google-refresh-token", "refresh token of Google", "1//0", r"1//0[A-Za-z0-9_-]{40,120}", "1//0<m99>", bits=3.8
    ),
    token(
        "azure-client-secret",
        "client secret of Microsoft Entra",
        "q~",
        r"[A-Za-z0-9_~.-]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34}(?![A-Za-z0-9_~.-])",
        "(<m3>8Q~<m34>)",
        "client_secret=<m3>7Q~<m33>",
        no=("client_secret=bP88Q~xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "USK@,4~q8Q~3<m40>,x"),
        before=4,
    ),
    token(
        "azure-storage-key",
        "key of Azure Storage",
        "accountkey=",
        r"AccountKey=(?P<v>[A-Za-z0-9+/]{86}==)",
        "AccountKey=<m86>==;",
        edge=False,
    ),
    token(
        "azure-shared-access-key",
        "shared access key of Azure",
        "sharedaccesskey=",
        r"SharedAccessKey=(?P<v>[A-Za-z0-9+/]{43}=|[A-Za-z0-9+/]{86}==)",
        "Endpoint=sb://x/;SharedAccessKeyName=a;SharedAccessKey=<m43>=",
        edge=False,
    ),
    Shape(
        "azure-sas",
        "shared access signature of Azure",
        ("&sig=", "?sig="),
        r"[?&]sig=(?P<v>[A-Za-z0-9%+/]{43,63}(?:%3D|=))",
        ("https://x.blob.core.windows.net/a?sv=2024-01-01&sig=<m43>%3D",),
        ("https://x.example/a?sig=<m12>",),
        edge=False,
    ),
    token(
        "azure-devops-token",
        "token of Azure DevOps",
        "azdo",
        r"[A-Za-z0-9]{76}AZDO[A-Za-z0-9]{4}",
        "<m76>AZDO<m4>",
        before=76,
    ),
    token("alibaba-access-key", "access key of Alibaba Cloud", "ltai", r"LTAI[A-Za-z0-9]{12,26}", "LTAI<m20>"),
    token(
        "digitalocean-token",
        "token of DigitalOcean",
        "_v1_",
        r"do[opr]_v1_[0-9a-f]{64}",
        "dop_v1_<h64>",
        before=3,
        entry="digitalocean",
    ),
    token("heroku-api-key", "API key of Heroku", "hrku-", r"HRKU-[A-Za-z0-9_-]{36,64}", "HRKU-<m60>", entry="heroku"),
    token(
        "fly-token",
        "token of Fly.io",
        "fm1_|fm1a_|fm1r_|fm2_",
        r"fm[12][ar]?_[A-Za-z0-9+/=_,-]{100,2000}",
        "fm2_<m200>",
        entry="fly",
    ),
    token("fly-oauth-token", "token of Fly.io", "fo1_", r"fo1_[A-Za-z0-9_-]{43}", "fo1_<m43>", entry="fly"),
    token("render-api-key", "API key of Render", "rnd_", r"rnd_[A-Za-z0-9]{20,48}", "rnd_<m32>"),
    token("netlify-token", "token of Netlify", "nfp_|nfc_|nfo_|nfb_|nfu_", r"nf[a-z]_[A-Za-z0-9]{36}", "nfp_<m36>"),
    Shape(
        "vercel-token",
        "token of Vercel",
        ("vca_", "vci_", "vcp_", "vcr_", "vck_"),
        r"vc[aipkr]_[A-Za-z0-9]{24,64}",
        ("vcp_<m56>",),
        ("vcp_handle = 1",),
        entry="vercel",
    ),
    token(
        "cloudflare-origin-key",
        "origin CA key of Cloudflare",
        "v1.0-",
        r"v1\.0-[0-9a-f]{24}-[0-9a-f]{146}",
        "v1.0-<h24>-<h146>",
    ),
    token("supabase-token", "token of Supabase", "sbp_", r"sbp_[0-9a-f]{40}", "sbp_<h40>", entry="supabase"),
    token(
        "supabase-secret-key",
        "secret key of Supabase",
        "sb_secret_",
        r"sb_secret_[A-Za-z0-9_-]{20,64}",
        "sb_secret_<m31>",
    ),
    token("neon-api-key", "API key of Neon", "napi_", r"napi_[a-z0-9]{60,80}", "napi_<a64>", entry="neon"),
    token(
        "planetscale-token",
        "token of PlanetScale",
        "pscale_",
        r"pscale_(?:tkn|oauth|pw)_[A-Za-z0-9_.-]{32,64}",
        "pscale_tkn_<m43>",
    ),
    token("databricks-token", "token of Databricks", "dapi", r"dapi[0-9a-f]{32}(?:-[0-9])?", "dapi<h32>"),
    token("scaleway-key", "access key of Scaleway", "scw", r"SCW[A-Z0-9]{17}", "SCW<A17>", check=_has_digit),
    token(
        "tailscale-key",
        "key of Tailscale",
        "tskey-",
        r"tskey-[a-z]{3,12}-[A-Za-z0-9]{6,30}-[A-Za-z0-9]{16,48}",
        "tskey-auth-<m12>-<m32>",
    ),
    token("openshift-token", "token of OpenShift", "sha256~", r"sha256~[A-Za-z0-9_-]{43}", "sha256~<m43>", bits=3.9),
    token("yandex-api-key", "API key of Yandex Cloud", "aqvn", r"AQVN[A-Za-z0-9_-]{35,38}", "AQVN<m36>"),
)

_INFRASTRUCTURE = (
    Shape(
        "vault-token",
        "token of Keyhole, Vault or OpenBao",
        ("hvs.", "hvb.", "hvr."),
        r"hv[sbr]\.[A-Za-z0-9_-]{24,400}(?:\.[A-Za-z0-9]{4,32})?",
        ("-token hvs.<m44>", "hvb.<m120>"),
        ("hvs.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",),
        bits=3.5,
    ),
    token(
        "terraform-token",
        "token of Terraform",
        ".atlasv1.",
        r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,80}",
        "<m14>.atlasv1.<m67>",
        before=14,
    ),
    token(
        "pulumi-token",
        "token of Pulumi",
        "pul-",
        r"pul-[0-9a-f]{40}",
        "pul-<h40>",
        no=("assets/vipul-<h64>.png",),
        entry="pulumi",
    ),
    token(
        "doppler-token",
        "token of Doppler",
        "dp.",
        r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9_.-]{40,80}",
        "dp.pt.<m43>",
        "dp.st.dev.<m43>",
    ),
    token(
        "onepassword-token",
        "service account token of 1Password",
        "ops_eyj",
        r"ops_eyJ[A-Za-z0-9+/_-]{200,8192}={0,3}",
        "ops_eyJ<m400>",
        bits=4.0,
    ),
    token(
        "onepassword-secret-key",
        "secret key of 1Password",
        "a3-",
        r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
        "A3-<A6>-<A11>-<A5>-<A5>-<A5>",
        "A3-<A6>-<A6>-<A5>-<A5>-<A5>-<A5>",
        no=("A3-XXXXXX-XXXXXXXXXXX-XXXXX-XXXXX-XXXXX",),
    ),
    token("grafana-token", "token of Grafana", "glsa_", r"glsa_[A-Za-z0-9]{32}_[0-9a-fA-F]{8}", "glsa_<m32>_<h8>"),
    token("grafana-cloud-token", "token of Grafana Cloud", "glc_", r"glc_[A-Za-z0-9+/]{32,400}={0,3}", "glc_<m120>="),
    Shape(
        "newrelic-key",
        "key of New Relic",
        ("nrak-", "nrii-", "nrra-"),
        r"NR(?:AK|II|RA)-[A-Za-z0-9_-]{27,42}",
        ("NRAK-<A27>",),
        ("NRAK-1",),
    ),
    token("sentry-org-token", "token of Sentry", "sntrys_", r"sntrys_eyJ[A-Za-z0-9_=+/-]{60,600}", "sntrys_eyJ<m140>"),
    token("sentry-user-token", "token of Sentry", "sntryu_", r"sntryu_[0-9a-f]{64}", "sntryu_<h64>"),
    token(
        "dynatrace-token", "token of Dynatrace", "dt0c01.", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}", "dt0c01.<A24>.<A64>"
    ),
    token(
        "octopus-key",
        "API key of Octopus Deploy",
        "api-",
        r"API-[A-Z0-9]{26}",
        "API-<A26>",
        no=("GSSAPI-VIRHEKAPSELOINTIMERKKIJONO.",),
        check=_has_digit,
    ),
    token("artifactory-key", "API key of Artifactory", "akcp", r"AKCp[A-Za-z0-9]{69}", "AKCp<m69>"),
    token("artifactory-reference", "reference token of Artifactory", "cmvmd", r"cmVmd[A-Za-z0-9]{59}", "cmVmd<m59>"),
    token("prefect-token", "token of Prefect", "pnu_", r"pnu_[A-Za-z0-9]{36}", "pnu_<m36>"),
    token("clickhouse-key", "key of ClickHouse Cloud", "4b1d", r"4b1d[A-Za-z0-9]{38}", "4b1d<m38>"),
    token(
        "harness-token",
        "token of Harness",
        "pat.|sat.",
        r"[ps]at\.[A-Za-z0-9_-]{22}\.[0-9a-f]{24}\.[A-Za-z0-9]{20}",
        "pat.<m22>.<h24>.<m20>",
    ),
    token("buildkite-token", "token of Buildkite", "bkua_", r"bkua_[0-9a-f]{40}", "bkua_<h40>"),
    token(
        "circleci-token",
        "token of CircleCI",
        "ccipat_",
        r"CCIPAT_[A-Za-z0-9]{16,32}_[0-9a-f]{40}",
        "CCIPAT_<m22>_<h40>",
    ),
    token(
        "infracost-token",
        "token of Infracost",
        "ico-",
        r"(?<![.-])ico-[A-Za-z0-9]{32}",
        "ico-<m32>",
        no=("video_box.ico-<h64>.png",),
        check=_has_digit,
        bits=3.7,
    ),
    token(
        "flutterwave-key",
        "key of Flutterwave",
        "flwseck",
        r"FLWSECK_(?:TEST-)?[0-9a-h]{12,48}(?:-X)?",
        "FLWSECK_TEST-<h32>-X",
    ),
)

TOKENS = (*_GENERAL, *_CLOUD, *_INFRASTRUCTURE)
