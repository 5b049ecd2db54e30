"""Drives a server with the client that openapi-python-client makes of docs/openapi.json.

    python drive.py CLIENT_FOLDER URL KEY
"""

import sys

folder, url, key = sys.argv[1:4]
sys.path.insert(0, folder)

from gatepost_client import AuthenticatedClient
from gatepost_client.api.deliveries import list_deliveries
from gatepost_client.api.events import publish_cloud_event, publish_event, publish_events
from gatepost_client.api.tenants import put_tenant
from gatepost_client.api.webhooks import create_webhook, get_webhook, update_webhook
from gatepost_client.models import BatchInput, CloudEvent, EventInput, TenantInput, WebhookInput, WebhookPatch

client = AuthenticatedClient(base_url=url, token=key)
put_tenant.sync("acme", client=client, body=TenantInput(name="Acme"))
made = create_webhook.sync(
    "acme", client=client, body=WebhookInput(name="w", url="http://127.0.0.1:9/in", events=["user.*"])
)
assert made.secret.startswith("whsec_"), made
one = publish_event.sync("acme", client=client, body=EventInput(type_="user.created", id="py-1", data={"n": 1}))
assert (one.id, one.deliveries, one.duplicate) == ("py-1", 1, False), one
cloud = CloudEvent(specversion="1.0", id="py-2", source="/s", type_="user.created", data={"n": 2})
assert publish_cloud_event.sync("acme", client=client, body=cloud).id == "py-2"
many = publish_events.sync("acme", client=client, body=BatchInput(events=[EventInput(type_="user.deleted")]))
assert len(many.events) == 1, many
update_webhook.sync("acme", made.id, client=client, body=WebhookPatch(description="changed"))
seen = get_webhook.sync("acme", made.id, client=client)
assert (seen.description, str(seen.health.state)) == ("changed", "ok") or seen.health.state == "failing", seen
rows = list_deliveries.sync("acme", client=client).data
assert len(rows) == 3 and all(row.webhook_id == made.id for row in rows), rows
print("driven")
