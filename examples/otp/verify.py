"""Verify a phone from Python 3.8 or later: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… python3 verify.py +12025550143"""

import json
import os
import sys
import urllib.error
import urllib.request
import uuid


def call(path, body, key=None):
    request = urllib.request.Request(os.environ["WATCHWORD_API"] + path, json.dumps(body).encode(), {
        "X-API-Key": os.environ["WATCHWORD_API_KEY"],
        "Content-Type": "application/json",
        "Idempotency-Key": key or str(uuid.uuid4()),  # repeat a request with its key: it is done once
    })
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        sys.exit(f"{problem['code']}: {problem['detail']}")  # decide by code


sent = call("/v1/verifications", {"to": sys.argv[1], "purpose": "sign_up"})
print("Sent to", sent["to"])
for line in sys.stdin:
    result = call(f"/v1/verifications/{sent['id']}/check", {"code": line.strip()})
    if result["valid"]:
        print("Verified")
        sys.exit()
    print("Wrong code, attempts left:", result["attempts_left"])
sys.exit(1)
