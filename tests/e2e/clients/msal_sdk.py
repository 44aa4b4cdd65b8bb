import json
import os

import msal
import requests

authority = f"https://login.microsoftonline.com/{os.environ['AZURE_TENANT_ID']}"
secret = os.environ["AZURE_CLIENT_SECRET"]
app = msal.ConfidentialClientApplication(os.environ["AZURE_CLIENT_ID"], client_credential=secret, authority=authority)
made = app.acquire_token_for_client(["https://graph.microsoft.com/.default"])
headers = {"Authorization": f"Bearer {made['access_token']}"}
answer = requests.get("https://graph.microsoft.com/v1.0/me", headers=headers)
print(json.dumps([answer.status_code, answer.json().get("displayName")]))
