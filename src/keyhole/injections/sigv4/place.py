"""Region and AWS service of a host of AWS, for requests that no client has signed."""

from __future__ import annotations

import re

_REGION = r"(?P<region>[a-z]{2,4}(?:-[a-z]+)+-[0-9])"
_SUFFIX = r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws|on\.aws)"
_S3 = re.compile(rf"(?:.+\.)?s3(?:-fips)?(?:\.dualstack)?[.-]{_REGION}{_SUFFIX}")
_REGIONAL = re.compile(rf"(?:.*\.)?(?P<label>[a-z0-9-]+)\.{_REGION}{_SUFFIX}")
_REVERSED = re.compile(rf"(?:.*\.)?{_REGION}\.(?P<label>es|aoss)\.(?:amazonaws\.com|on\.aws)")
_GLOBAL = re.compile(r"(?:.+\.)?(?P<label>s3)\.amazonaws\.com|(?P<other>[a-z0-9]+)\.amazonaws\.com")
_GLOBAL_REGION = "us-east-1"

# Name in the scope -> labels of hosts, where they differ.
_LABELS = {
    "agent-registry": "agent-registry-control",
    "appconfig": "appconfigdata",
    "appstream": "appstream2",
    "aws-marketplace": "agreement-marketplace deployment-marketplace discovery-marketplace marketplace "
    "reporting-marketplace",
    "bedrock": "bedrock-agent bedrock-agent-runtime bedrock-data-automation bedrock-data-automation-runtime "
    "bedrock-runtime",
    "bedrock-agentcore": "bedrock-agentcore-control",
    "cassandra": "cassandra-streams",
    "chime": "identity-chime media-pipelines-chime meetings-chime messaging-chime voice-chime",
    "cloudhsm": "cloudhsmv2",
    "cloudsearch": "cloudsearchdomain",
    "connect": "contact-lens",
    "events": "eventsv2",
    "forecast": "forecastquery",
    "ivs": "ivsrealtime",
    "lambda": "lambda-url",
    "lex": "models-v2-lex runtime-v2-lex",
    "memorydb": "memory-db",
    "mgh": "migrationhub-config",
    "mobiletargeting": "pinpoint",
    "partnercentral": "partnercentral-prm",
    "personalize": "personalize-events personalize-runtime",
    "s3": "s3-accesspoint s3-control",
    "servicecatalog": "servicecatalog-appregistry",
    "ses": "email mail-manager",
    "signer": "data-signer",
}
_NAMES = {label: service for service, labels in _LABELS.items() for label in labels.split()}
# What stands before some labels changes the name.
_WITH_SUBDOMAIN = {
    "data-ats.iot": "iotdata",
    "data.iot": "iotdata",
    "data.jobs.iot": "iot-jobs-data",
    "api.tunneling.iot": "IoTSecuredTunneling",
    "participant.connect": "execute-api",
    "sms-voice.pinpoint": "sms-voice",
}


def place_of(host: str) -> tuple[str, str] | None:
    """``(region, service)`` as they stand in a scope; ``None`` for a host that does not say them."""
    if found := _S3.fullmatch(host):
        return found["region"], "s3"
    if found := _REGIONAL.fullmatch(host) or _REVERSED.fullmatch(host):
        label = found["label"]
        for name, service in _WITH_SUBDOMAIN.items():
            if host.startswith(f"{name}.") or f".{name}." in host:
                return found["region"], service
        if label.startswith("s3express-"):
            return found["region"], "s3express"
        return found["region"], _NAMES.get(label, label)
    if found := _GLOBAL.fullmatch(host):
        return _GLOBAL_REGION, found["label"] or found["other"]
    return None
