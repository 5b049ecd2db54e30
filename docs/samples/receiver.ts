/**
 * A receiver of blocking hooks (profile gatepost): checks the signature, answers allow, deny or a change.
 *
 *     npx tsc --target es2022 --module nodenext receiver.ts && HOOK_SECRET=whsec_… node receiver.js 8482
 *
 * (Node 22.18 and later run receiver.ts as it is.)
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

type Json = null | boolean | number | string | Json[] | { [name: string]: Json };
interface Question {
  id: string;
  type: string;
  object?: { user?: Record<string, Json> };
}
interface Message { code: string; text?: string; path?: string }
interface Answer {
  decision: "allow" | "deny";
  messages?: Message[];
  object?: Json;
  value?: Json;
}

const KEY = Buffer.from((process.env.HOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
const TOLERANCE_S = 300;

/** Standard Webhooks: HMAC-SHA256 over id.timestamp.body, over the bytes as they came. */
function verified(headers: IncomingHttpHeaders, body: Buffer): boolean {
  const timestamp = String(headers["webhook-timestamp"] ?? "");
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE_S) return false;
  const hmac = createHmac("sha256", KEY).update(`${headers["webhook-id"]}.${timestamp}.`).update(body);
  const expected = Buffer.from("v1," + hmac.digest("base64"));
  // During a rotation there are several, separated by blanks.
  return String(headers["webhook-signature"] ?? "").split(" ").some((given) => {
    const bytes = Buffer.from(given);
    return bytes.length === expected.length && timingSafeEqual(bytes, expected);
  });
}

/** Pure: no side effects here, the platform may still not go through with it. */
function answer(question: Question): Answer {
  const user = question.object?.user ?? {};
  if (question.type === "hook.validateUser" && user.mobile === "9876543210") {
    const message = { code: "MOBILE_TAKEN", text: "This number belongs to somebody.", path: "/user/mobile" };
    return { decision: "deny", messages: [message] };
  }
  if (question.type === "hook.preCreateUser") {
    // What is left out stays as it is.
    return { decision: "allow", object: { user: { department: "Sales" } } };
  }
  return { decision: "allow" };
}

const server = createServer((request, response) => {
  const parts: Buffer[] = [];
  request.on("data", (part: Buffer) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    response.setHeader("content-type", "application/json");
    if (!verified(request.headers, body)) {
      response.writeHead(401).end("{}");
      return;
    }
    const question = JSON.parse(body.toString("utf8")) as Question;
    // The id must come back: it says which question this answers.
    response.end(JSON.stringify({ id: question.id, ...answer(question) }));
  });
});
server.keepAliveTimeout = 65_000; // longer than Gatepost keeps connections: the next question is quicker
server.listen(Number(process.argv[2]), "127.0.0.1", () => {
  console.log("listening on", (server.address() as AddressInfo).port);
});
