"""A platform that asks before it creates a user.

    GATEPOST_URL=http://127.0.0.1:8080 GATEPOST_KEY=gp_… python3 caller.py acme ada
"""

import json, os, sys, urllib.error, urllib.request, uuid

URL, KEY = os.environ["GATEPOST_URL"], os.environ["GATEPOST_KEY"]
BUDGET_MS = 800


def post(path: str, body: dict, headers: dict) -> dict:
    request = urllib.request.Request(f"{URL}/v1/tenants/{path}", json.dumps(body).encode(), {
        "authorization": f"Bearer {KEY}", "content-type": "application/json", **headers})
    # A little more than the budget: Gatepost answers within it.
    with urllib.request.urlopen(request, timeout=BUDGET_MS / 1000 + 0.2) as response:
        return json.load(response)


def may_create(tenant: str, user: dict) -> dict:
    question = {"subject": {"type": "user", "id": user["login"]}, "object": {"user": user}}
    # The same key at a repetition: the same decision, and nobody is asked twice.
    headers = {"gatepost-timeout-ms": str(BUDGET_MS), "idempotency-key": str(uuid.uuid4())}
    for last in (False, True):
        try:
            return post(f"{tenant}/operations/createUser/invoke", question, headers)
        except urllib.error.HTTPError as error:
            told = json.load(error)
            if error.code == 503 and "decision" in told:
                return told  # made without the receivers, or not written down: a no stays a no
            if error.code < 500 and error.code != 429:
                raise RuntimeError(told.get("detail", "refused")) from error  # our own mistake
            break
        except OSError:
            if last:
                break
    # Your own policy for when Gatepost is not there.
    return {"decision": "deny", "cause": "unreachable", "messages": [{"code": "TRY_LATER", "text": "Try again later."}]}


if __name__ == "__main__":
    tenant, login = sys.argv[1:3]
    decision = may_create(tenant, {"login": login})
    if decision["decision"] == "deny":
        sys.exit(f"refused ({decision['cause']}): {decision['messages'][0].get('text') or decision['messages'][0]['code']}")
    user = decision.get("object", {"user": {"login": login}})["user"]  # commit this one
    print("created", json.dumps(user, sort_keys=True))
    if "id" in decision:
        post(f"{tenant}/invocations/{decision['id']}/outcome", {"committed": True, "uid": login}, {})
