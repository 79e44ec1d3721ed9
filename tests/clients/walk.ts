// A client generated from the served description walks every operation of it. openapi-typescript
// made the types (api.d.ts), openapi-fetch speaks; nothing here was written against the gateway.
//   node out/walk.js        SHEAF_URL, SHEAF_OPERATOR, SHEAF_TENANT, SHEAF_CLAIM (base64)
import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, randomBytes, randomUUID, sign } from "node:crypto";
import createClient, { type Middleware } from "openapi-fetch";
import { Description } from "./check.js";
import type { components, paths } from "./api.js";

type JobFile = components["schemas"]["JobFile"];

function need(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set`);
  return value;
}

const url = need("SHEAF_URL");
const served = await (await fetch(`${url}/openapi.json`)).json();
const description = new Description(served as Record<string, any>);

const checking: Middleware = {
  async onResponse({ request, response, schemaPath }) {
    await description.check(request.method, schemaPath, response);
  },
};

function client(token?: string) {
  const made = createClient<paths>({
    baseUrl: url,
    headers: token ? { Authorization: `Bearer ${token}` } : {},
  });
  made.use(checking);
  return made;
}

const anybody = client();
const operator = client(need("SHEAF_OPERATOR"));
const tenant = client(need("SHEAF_TENANT"));

/** The data of a good answer; a problem's text otherwise. */
function good<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (!answer.response.ok)
    throw new Error(`${answer.response.url}: ${JSON.stringify(answer.error)}`);
  return answer.data as T;
}

/** Its status and code, when it was refused as wanted. */
function refused(answer: { error?: components["schemas"]["Problem"]; response: Response },
                 status: number, code: string): void {
  assert.deepEqual([answer.response.status, answer.error?.code], [status, code]);
}

function some<T>(list: { items: T[] }): T {
  assert.ok(list.items.length > 0, "the list is empty: its items were not checked");
  return list.items[0]!;
}

const keyed = () => ({ header: { "Idempotency-Key": randomUUID() } });
const nobody = { path: { id: "01890000-0000-7000-8000-000000000001" } };

async function processItself(): Promise<void> {
  good(await anybody.GET("/healthz"));
  good(await anybody.GET("/readyz"));
  good(await anybody.GET("/version"));
  good(await anybody.GET("/openapi.json"));
  const code = { params: { path: { code: "not-found" } } };
  assert.match(good(await anybody.GET("/errors/{code}", { ...code, parseAs: "text" })), /not-found/);
  assert.match(good(await anybody.GET("/metrics", { parseAs: "text" })), /^# HELP /);
  const script = good(await anybody.GET("/join.sh", { parseAs: "text" }));
  const file = /sheaf-worker_[^\s'"]+\.deb/.exec(script)?.[0] ?? "";
  const named = { params: { path: { file } } };
  assert.match(good(await anybody.GET("/packages/{file}", { ...named, parseAs: "text" })), /not to be installed/);
  assert.match(good(await anybody.GET("/ca.pem", { parseAs: "text" })), /BEGIN CERTIFICATE/);
  assert.match(good(await anybody.GET("/", { parseAs: "text" })), /<!DOCTYPE html>/);
}

async function people(): Promise<void> {
  good(await operator.GET("/api/v1/whoami"));
  assert.equal(good(await tenant.GET("/api/v1/whoami")).project, "demo");
  good(await operator.POST("/api/v1/projects", { body: { name: "walkers" } }));
  refused(await operator.POST("/api/v1/projects", { body: { name: "walkers" } }), 409,
          "already-exists");
  refused(await tenant.POST("/api/v1/projects", { body: { name: "mine" } }), 403,
          "scope-missing");
  some(good(await operator.GET("/api/v1/projects", { params: { query: { limit: 1 } } })));
  good(await operator.POST("/api/v1/users", { body: { name: "grace", role: "tenant" } }));
  some(good(await operator.GET("/api/v1/users")));
  const made = good(await operator.POST("/api/v1/tokens", {
    body: { role: "tenant", project: "walkers", user: "grace", ttl_s: 600 } }));
  some(good(await operator.GET("/api/v1/tokens")));
  const late = client(made.secret);
  good(await late.GET("/api/v1/whoami"));
  good(await operator.DELETE("/api/v1/tokens/{id}", { params: { path: { id: made.id } } }));
  refused(await late.GET("/api/v1/whoami"), 401, "token-invalid");
}

async function money(): Promise<void> {
  const params = keyed();
  const body = { project: "walkers", amount: "12.50", asset: "USD", memo: "walk" };
  good(await operator.POST("/api/v1/deposits", { params, body }));
  good(await operator.POST("/api/v1/deposits", { params, body }));
  refused(await operator.POST("/api/v1/deposits", { params, body: { ...body, amount: "1.00" } }),
          422, "idempotency-key-reused");
  refused(await operator.POST("/api/v1/deposits", {
    params: keyed(), body: { ...body, amount: "-1" } }), 422, "invalid-amount");
  const accounts = good(await operator.GET("/api/v1/accounts", { params: { query: { limit: 200 } } }));
  const account = accounts.items.find((one) => one.project === "walkers" && one.balance === "12.50");
  assert.ok(account, "the deposit is on no account, or twice");
  some(good(await operator.GET("/api/v1/accounts/{id}/ledger", {
    params: { path: { id: account.id } } })));
  refused(await tenant.GET("/api/v1/accounts/{id}/ledger", {
    params: { path: { id: account.id } } }), 404, "not-found");
}

/** A machine that no worker of ours speaks for: keys by node, the claim by protoc. */
async function join(): Promise<void> {
  const token = good(await operator.POST("/api/v1/join-tokens", {
    body: { provider: "walkers", uses: 1, ttl_s: 600 } }));
  some(good(await operator.GET("/api/v1/join-tokens")));
  const secret: string = JSON.parse(
    Buffer.from(token.token.split(".")[1]!, "base64url").toString()).secret;
  const curve = randomBytes(32);
  const pair = generateKeyPairSync("ed25519");
  const signKey = pair.publicKey.export({ type: "spki", format: "der" }).subarray(-32);
  const proved = Buffer.concat([Buffer.from("sheaf enrol 1\0"), curve,
                                createHash("sha256").update(secret).digest()]);
  const body = {
    curve_key: curve.toString("hex"),
    sign_key: signKey.toString("hex"),
    machine: randomBytes(32).toString("hex"),
    claim: need("SHEAF_CLAIM"),
    proof: sign(null, proved, pair.privateKey).toString("hex"),
  };
  const machine = client(secret);
  const joined = good(await machine.POST("/api/v1/join", { body }));
  refused(await machine.POST("/api/v1/join", { body: { ...body, machine: randomBytes(32).toString("hex") } }),
          409, "join-token-spent");
  refused(await anybody.POST("/api/v1/join", { body }), 401, "auth-required");
  assert.match(token.command, /^sheaf-worker join /);
  const params = { path: { id: joined.node } };
  const gone = good(await operator.POST("/api/v1/nodes/{id}/revoke", {
    params, body: { reason: "walk" } }));
  assert.equal(gone.state, "gone");
}

async function hardware(): Promise<void> {
  some(good(await tenant.GET("/api/v1/offers")));
  const nodes = good(await operator.GET("/api/v1/nodes", { params: { query: { state: "ready" } } }));
  const params = { path: { id: some(nodes).id } };
  good(await operator.POST("/api/v1/nodes/{id}/drain", { params, body: { reason: "walk" } }));
  good(await operator.POST("/api/v1/nodes/{id}/undrain", { params }));
  assert.ok(some(good(await operator.GET("/api/v1/network/pairs"))).rtt_p95_us);
  refused(await operator.GET("/api/v1/nodes/{id}", { params: nobody }), 404, "not-found");
  refused(await operator.GET("/api/v1/nodes", { params: { query: { limit: 0 } } }), 400,
          "invalid-limit");
}

async function upload(): Promise<void> {
  const bytes = randomBytes(100_000);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  const begun = good(await tenant.POST("/api/v1/uploads", { body: { sha256, size: bytes.length } }));
  assert.equal(begun.done, false);
  const part = { params: { path: { sha256, n: 0 } }, bodySerializer: (body: unknown) => body as Uint8Array,
                 headers: { "Content-Type": "application/octet-stream" } };
  good(await tenant.PUT("/api/v1/uploads/{sha256}/parts/{n}", { ...part, body: bytes as unknown as string }));
  const commit = { params: { path: { sha256 } }, body: { size: bytes.length } };
  assert.equal(good(await tenant.POST("/api/v1/uploads/{sha256}/commit", commit)).done, true);
}

const ask: JobFile = {
  version: 1,
  name: "walk",
  nodes: 2,
  resources: { gpu: "cpu:512MB:1" },
  budget: { max_total: "1.00" },
  max_duration: "10m",
  commands: ["echo walked; echo result > /out/result"],
  outputs: ["/out"],
};

/** Follows the event stream of the job, each event as described, until it is in the state. */
async function reach(id: string, state: string): Promise<void> {
  const response = await fetch(`${url}/api/v1/jobs/${id}/events`, {
    headers: { Accept: "text/event-stream", Authorization: `Bearer ${need("SHEAF_TENANT")}` } });
  assert.match(response.headers.get("Content-Type")!, /^text\/event-stream/);
  let text = "";
  for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
    const events = (text + piece).split("\n\n");
    text = events.pop()!;
    for (const event of events.filter((one) => one.includes("event: state"))) {
      const value = JSON.parse(/^data: (.*)$/m.exec(event)![1]!);
      description.checkValue("Event", value);
      if (value.to === state) return;
    }
  }
  throw new Error(`the stream ended before the job was ${state}`);
}

async function finished(): Promise<void> {
  assert.equal(good(await tenant.POST("/api/v1/plans", { body: ask })).why.placed, true);
  const params = keyed();
  const job = good(await tenant.POST("/api/v1/jobs", { params, body: ask }));
  assert.equal(good(await tenant.POST("/api/v1/jobs", { params, body: ask })).id, job.id);
  const at = { params: { path: { id: job.id } } };
  await reach(job.id, "succeeded");
  assert.equal(good(await tenant.GET("/api/v1/jobs/{id}", at)).ranks?.length, 2);
  some(good(await tenant.GET("/api/v1/jobs", { params: { query: { state: "succeeded", limit: 1 } } })));
  assert.equal(good(await tenant.GET("/api/v1/jobs/{id}/why", at)).pairs?.length, 1);
  const events = good(await tenant.GET("/api/v1/jobs/{id}/events", at));
  assert.ok(typeof events !== "string"); // it was not asked to stream
  some(events);
  assert.match(good(await tenant.GET("/api/v1/jobs/{id}/logs", { ...at, parseAs: "text" })), /walked/);
  const cost = good(await tenant.GET("/api/v1/jobs/{id}/cost", at));
  assert.deepEqual([cost.balanced, cost.lines.length], [true, 2]);
  some(good(await tenant.GET("/api/v1/jobs/{id}/outputs", at)));
  const output = good(await tenant.GET("/api/v1/jobs/{id}/outputs/{rank}", {
    params: { path: { id: job.id, rank: 1 } }, parseAs: "arrayBuffer" }));
  assert.equal(Buffer.from(output as ArrayBuffer).readUInt32LE(0), 0xfd2fb528); // zstd
  const piece = await tenant.GET("/api/v1/jobs/{id}/outputs/{rank}", {
    params: { path: { id: job.id, rank: 1 } }, headers: { Range: "bytes=0-3" }, parseAs: "arrayBuffer" });
  assert.equal(piece.response.status, 206);
  refused(await tenant.POST("/api/v1/jobs/{id}/cancel", at), 409, "already-terminal");
  const other = good(await tenant.POST("/api/v1/jobs", { params: keyed(), body: ask }));
  good(await tenant.POST("/api/v1/jobs/{id}/cancel", { params: { path: { id: other.id } } }));
}

async function cancelled(): Promise<void> {
  const body = { ...ask, name: "long", commands: ["sleep 600"] };
  const job = good(await tenant.POST("/api/v1/jobs", { params: keyed(), body }));
  await reach(job.id, "running");
  const running = good(await tenant.GET("/api/v1/jobs/{id}", { params: { path: { id: job.id } } }));
  const node = good(await operator.GET("/api/v1/nodes/{id}", {
    params: { path: { id: running.ranks![0]!.node } } }));
  assert.equal(node.leases.length, 1);
  const { response } = await tenant.POST("/api/v1/jobs/{id}/cancel", {
    params: { path: { id: job.id } }, body: { reason: "walked far enough" } });
  assert.equal(response.status, 202);
  await reach(job.id, "cancelled");
}

async function refusals(): Promise<void> {
  refused(await tenant.POST("/api/v1/jobs", {
    params: keyed(), body: { ...ask, budget: { max_total: "1000000" } } }), 402, "insufficient-funds");
  refused(await tenant.POST("/api/v1/jobs", {
    params: keyed(), body: { ...ask, nodes: 0 } }), 422, "out-of-range");
  refused(await tenant.POST("/api/v1/jobs", {
    params: keyed(), body: { ...ask, gpu_cnt: 1 } as JobFile }), 422, "unknown-field");
  for (const path of ["/api/v1/jobs/{id}", "/api/v1/jobs/{id}/why", "/api/v1/jobs/{id}/events",
                      "/api/v1/jobs/{id}/cost", "/api/v1/jobs/{id}/outputs"] as const)
    refused(await tenant.GET(path, { params: nobody }), 404, "not-found");
}

/** Every operation that asks for a credential refuses to work without one, in the described form. */
async function uncredentialed(): Promise<void> {
  for (const operation of description.operations().filter((one) => !one.open)) {
    const path = operation.path.replace("{id}", nobody.path.id).replace("{rank}", "0")
      .replace("{sha256}", "0".repeat(64)).replace("{n}", "0");
    const headers: Record<string, string> = { "Idempotency-Key": randomUUID() };
    if (operation.body) headers["Content-Type"] = "application/json";
    const response = await fetch(url + path, {
      method: operation.method.toUpperCase(), headers, body: operation.body ? "{}" : undefined });
    assert.equal(response.status, 401, operation.id);
    assert.ok(response.headers.get("WWW-Authenticate"), operation.id);
    await description.check(operation.method, operation.path, response);
  }
}

for (const step of [processItself, people, money, hardware, upload, finished, cancelled, refusals, join,
                    uncredentialed])
  await step().catch((error: Error) => {
    console.error(`FAILED in ${step.name}: ${error.stack}`);
    process.exit(1);
  });

const all = description.operations();
const unwalked = all.filter((one) => !description.answered.has(one.id)).map((one) => one.id);
assert.deepEqual(unwalked, [], "operations without a good answer");
const unrefused = all.filter((one) => !one.open && !description.refused.has(one.id)).map((one) => one.id);
assert.deepEqual(unrefused, [], "operations without a problem");
console.log(`${all.length} operations walked, ${description.answers} answers as described`);
