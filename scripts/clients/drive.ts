// Drives a server with the types that openapi-typescript makes of docs/openapi.json.
//   node drive.js URL KEY
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

const [url, key] = process.argv.slice(2) as [string, string];
const api = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${key}` } });
const tenant = { path: { tenant: "acme" } };

function there<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
  return answer.data;
}

there(await api.PUT("/v1/tenants/{tenant}", { params: tenant, body: { name: "Acme" } }));
const body: components["schemas"]["WebhookInput"] = { name: "w", url: "http://127.0.0.1:9/in", events: ["user.*"], profile: "standard" };
const made = there(await api.POST("/v1/tenants/{tenant}/webhooks", { params: tenant, body }));
const health: "ok" | "failing" | "disabled" = made.health.state;
const one = there(await api.POST("/v1/tenants/{tenant}/events", { params: { ...tenant, header: { "Idempotency-Key": "k1" } }, body: { type: "user.created", id: "ts-1", data: { n: 1 } } }));
const cloud = there(
  await api.POST("/v1/tenants/{tenant}/events/cloudevents", {
    params: tenant,
    headers: { "content-type": "application/cloudevents+json" },
    body: { specversion: "1.0", id: "ts-2", source: "/s", type: "user.created", data: { n: 2 } },
  }),
);
const rows = there(await api.GET("/v1/tenants/{tenant}/deliveries", { params: { ...tenant, query: { limit: 10 } } }));
const detail = there(await api.GET("/v1/tenants/{tenant}/deliveries/{delivery}", { params: { path: { tenant: "acme", delivery: rows.data[0]!.id } } }));
const failed = detail.attempt_list.filter((attempt) => attempt.outcome !== "ok").length;
if (health !== "ok" || one.deliveries !== 1 || cloud.id !== "ts-2" || rows.data.length !== 2 || failed > 100) {
  throw new Error(JSON.stringify({ health, one, cloud, rows }));
}
console.log("driven");
