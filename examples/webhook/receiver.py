"""Take webhooks in Python 3.8 or later: LISTEN=127.0.0.1:3000 WEBHOOK_SECRET=whsec_… python3 receiver.py"""

import base64
import hashlib
import hmac
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

secret = os.environ["WEBHOOK_SECRET"]
key = base64.b64decode(secret[len("whsec_"):] if secret.startswith("whsec_") else secret)


def verified(headers, body):
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not id or not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > 300:
        return False
    expected = base64.b64encode(hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest())
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(b"v1," + expected, part.encode()) for part in given)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), 64 << 10))
        good = verified(self.headers, body)
        self.send_response(204 if good else 401)
        self.end_headers()
        if good:
            event = json.loads(body)
            print(event["type"], event["data"].get("id"), event["data"].get("status"))  # unless event["id"] was seen before


host, port = os.environ["LISTEN"].rsplit(":", 1)
ThreadingHTTPServer((host, int(port)), Receiver).serve_forever()
