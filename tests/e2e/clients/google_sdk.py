import json

import google.auth
from google.auth.transport.requests import AuthorizedSession

credentials, project = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
answer = AuthorizedSession(credentials).get("https://cloudresourcemanager.googleapis.com/v1/projects")
print(json.dumps([answer.status_code, answer.json()]))
