"""A real provider of OAuth 1.0a for the end-to-end tests: PyPI's `oauthlib` on 127.0.0.1.

    python oauth1-provider.py '{"clientKey": "…", "clientSecret": "…", "callback": "…"}'

Listens on a free port and prints one line of JSON, {"base": "http://127.0.0.1:PORT", "privateKey": "PEM"}. Ends when its
standard input does, so it never outlives whoever started it. The client may sign by HMAC-SHA1, HMAC-SHA256 and PLAINTEXT with
its secret, and by RSA-SHA1 and RSA-SHA256 with the private key. Keys and secrets follow oauthlib's own rules: 20 to 30
letters and digits.

  POST /initiate      temporary credentials (RFC 5849 section 2.1)
  GET  /authorize     a page that asks who is there, and to allow or deny (section 2.2)
  POST /token         token credentials (section 2.3)
  any  /api/...       tells what it was asked, if the signature is right

For the tests alone:
  GET  /_log          every request, with its Authorization header and what it was answered
  POST /_revoke       forgets all token credentials
"""

import json
import sys
import threading
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, parse_qsl, urlsplit

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from oauthlib.oauth1 import (
    AccessTokenEndpoint,
    AuthorizationEndpoint,
    RequestTokenEndpoint,
    RequestValidator,
    ResourceEndpoint,
)

METHODS = ["HMAC-SHA1", "HMAC-SHA256", "RSA-SHA1", "RSA-SHA256", "PLAINTEXT"]
FORM = "application/x-www-form-urlencoded"

settings = json.loads(sys.argv[1])
private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
lock = threading.Lock()
log = []


class Validator(RequestValidator):
    """What oauthlib asks its user: what is stored, and whether a nonce is new."""

    enforce_ssl = False
    allowed_signature_methods = METHODS
    dummy_client = "dummy-client"
    dummy_request_token = "dummy-request-token"
    dummy_access_token = "dummy-access-token"

    def __init__(self):
        super().__init__()
        self.temporary = {}
        self.tokens = {}
        self.nonces = set()

    def get_client_secret(self, client_key, request):
        return settings["clientSecret"]

    def get_rsa_key(self, client_key, request):
        public = serialization.PublicFormat.SubjectPublicKeyInfo
        return private_key.public_key().public_bytes(serialization.Encoding.PEM, public).decode()

    def get_request_token_secret(self, client_key, token, request):
        return self.temporary.get(token, {"oauth_token_secret": "dummy"})["oauth_token_secret"]

    def get_access_token_secret(self, client_key, token, request):
        return self.tokens.get(token, {"oauth_token_secret": "dummy"})["oauth_token_secret"]

    def get_default_realms(self, client_key, request):
        return []

    def get_realms(self, token, request):
        return []

    def get_redirect_uri(self, token, request):
        return self.temporary[token]["callback"]

    def validate_client_key(self, client_key, request):
        return client_key == settings["clientKey"]

    def validate_request_token(self, client_key, token, request):
        return token in self.temporary

    def validate_access_token(self, client_key, token, request):
        return token in self.tokens

    def validate_timestamp_and_nonce(
        self, client_key, timestamp, nonce, request, request_token=None, access_token=None
    ):
        with lock:
            seen = (timestamp, nonce) in self.nonces
            self.nonces.add((timestamp, nonce))
        return not seen

    def validate_redirect_uri(self, client_key, redirect_uri, request):
        return redirect_uri == settings["callback"]

    def validate_requested_realms(self, client_key, realms, request):
        return True

    def validate_realms(self, client_key, token, request, uri=None, realms=None):
        return True

    def verify_request_token(self, token, request):
        return token in self.temporary

    def verify_realms(self, token, realms, request):
        return True

    def validate_verifier(self, client_key, token, verifier, request):
        return self.temporary[token].get("verifier") == verifier

    def save_request_token(self, token, request):
        self.temporary[token["oauth_token"]] = {**token, "callback": request.redirect_uri}

    def save_verifier(self, token, verifier, request):
        self.temporary[token]["verifier"] = verifier["oauth_verifier"]

    def invalidate_request_token(self, client_key, request_token, request):
        del self.temporary[request_token]

    def save_access_token(self, token, request):
        user = self.temporary[request.resource_owner_key]["user"]
        self.tokens[token["oauth_token"]] = {**token, "user": user}


validator = Validator()
initiate = RequestTokenEndpoint(validator)
authorization = AuthorizationEndpoint(validator)
token_request = AccessTokenEndpoint(validator)
resource = ResourceEndpoint(validator)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        path = urlsplit(self.path).path
        self.payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes = {
            "/initiate": lambda: self.leg(initiate.create_request_token_response),
            "/token": lambda: self.leg(token_request.create_access_token_response),
            "/authorize": self.authorize,
            "/deny": self.deny,
            "/_log": lambda: self.answer_json(200, log),
            "/_revoke": self.revoke,
        }
        route = self.api if path.startswith("/api/") else routes.get(path, lambda: self.answer(404))
        route()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    @property
    def request_line(self):
        """What oauthlib wants to know of a request: its URI, method, body and headers."""
        uri = f"http://{self.headers['Host']}{self.path}"
        return uri, self.command, self.payload.decode(), dict(self.headers)

    def leg(self, create):
        self.answer(*reversed(create(*self.request_line)))

    def authorize(self):
        if self.command == "POST":
            fields = dict(parse_qsl(self.payload.decode()))
            validator.temporary[fields["oauth_token"]]["user"] = fields["user"]
            uri = f"http://{self.headers['Host']}/authorize?oauth_token={fields['oauth_token']}"
            headers, _, _ = authorization.create_authorization_response(uri)
            return self.answer(303, "", headers)
        token = parse_qs(urlsplit(self.path).query)["oauth_token"][0]
        if token not in validator.temporary:
            return self.answer(400)
        self.answer(
            200,
            f"""<!doctype html><title>Authorize</title><form method="post" action="/authorize">
            <input type="hidden" name="oauth_token" value="{escape(token)}"><input name="user">
            <button>Allow</button></form><a href="/deny?oauth_token={escape(token)}">Deny</a>""",
            {"Content-Type": "text/html"},
        )

    def deny(self):
        token = parse_qs(urlsplit(self.path).query)["oauth_token"][0]
        callback = validator.temporary.pop(token)["callback"]
        self.answer(303, "", {"Location": f"{callback}?oauth_token={token}&oauth_problem=user_refused"})

    def api(self):
        valid, request = resource.validate_protected_resource_request(*self.request_line)
        if not valid:
            known = getattr(request, "resource_owner_key", None) in validator.tokens
            problem = {} if known else {"WWW-Authenticate": 'OAuth realm="", oauth_problem="token_rejected"'}
            return self.answer(401, "", problem)
        is_form = self.headers.get("Content-Type", "").split(";")[0] == FORM
        pairs = lambda text: parse_qsl(text, keep_blank_values=True)
        self.answer_json(
            200,
            {
                "user": validator.tokens[request.resource_owner_key]["user"],
                "method": self.command,
                "signatureMethod": request.signature_method,
                "query": pairs(urlsplit(self.path).query),
                "form": pairs(self.payload.decode()) if is_form else [],
                "body": self.payload.decode(),
            },
        )

    def revoke(self):
        validator.tokens.clear()
        self.answer(204)

    def answer_json(self, status, value):
        self.answer(status, json.dumps(value), {"Content-Type": "application/json"})

    def answer(self, status, body="", headers=None):
        log.append(
            {
                "method": self.command,
                "path": urlsplit(self.path).path,
                "authorization": self.headers.get("Authorization"),
                "status": status,
            }
        )
        encoded = (body or "").encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def log_message(self, format, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=server.serve_forever, daemon=True).start()
pem = private_key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
start = {"base": f"http://127.0.0.1:{server.server_port}", "privateKey": pem.decode()}
print(json.dumps(start), flush=True)
sys.stdin.read()
