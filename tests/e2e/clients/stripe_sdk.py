import json
import os
import sys

import stripe

if sys.argv[1:] == ["--ca"]:  # it trusts a list of its own unless told
    stripe.ca_bundle_path = os.environ["SSL_CERT_FILE"]
client = stripe.StripeClient(os.environ["STRIPE_API_KEY"], max_network_retries=0)
balance = client.v1.balance.retrieve()
customer = client.v1.customers.create({"email": "a+b@example.test"})
print(json.dumps([balance.available[0].amount, customer.email]))
