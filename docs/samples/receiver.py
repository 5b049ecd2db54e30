"""A receiver of blocking hooks (profile gatepost): checks the signature, answers allow, deny or a change.

    HOOK_SECRET=whsec_… python3 receiver.py 8481
"""

import base64, hashlib, hmac, json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = base64.b64decode(os.environ["HOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE_S = 300


def verified(headers, body: bytes) -> bool:
    """Standard Webhooks: HMAC-SHA256 over id.timestamp.body, over the bytes as they came."""
    msg_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "0")
    if not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_S:
        return False
    signed = f"{msg_id}.{timestamp}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    # During a rotation there are several, separated by blanks.
    return any(hmac.compare_digest(expected, given) for given in headers.get("webhook-signature", "").split(" "))


def answer(question: dict) -> dict:
    """Pure: no side effects here, the platform may still not go through with it."""
    if question["type"] == "hook.test":
        return {"decision": "allow"}
    user = question.get("object", {}).get("user", {})
    if question["type"] == "hook.validateUser" and user.get("mobile") == "9876543210":
        message = {"code": "MOBILE_TAKEN", "text": "This number belongs to somebody.", "path": "/user/mobile"}
        return {"decision": "deny", "messages": [message]}
    if question["type"] == "hook.preCreateUser":
        return {"decision": "allow", "patch": [{"op": "add", "path": "/user/department", "value": "Sales"}]}
    return {"decision": "allow"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections: the next question is quicker

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        status, out = 401, b"{}"
        if verified(self.headers, body):
            question = json.loads(body)
            # The id must come back: it says which question this answers.
            status, out = 200, json.dumps({"id": question["id"], **answer(question)}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(out)))
        self.end_headers()
        self.wfile.write(out)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listening on", server.server_port, flush=True)
    server.serve_forever()
