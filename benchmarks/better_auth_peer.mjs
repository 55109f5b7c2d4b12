// better-auth's API-key plugin behind a plain HTTP server: the body of our verify request in, its verdict out.
// Usage: node better_auth_peer.mjs PORT KEYS; prints the keys as a JSON array once it listens.
// The database is its in-memory adapter, the fastest it has; the rate limit is on and out of reach.

import { createServer } from "node:http";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { apiKey } from "@better-auth/api-key";

const [port, count] = process.argv.slice(2).map(Number);
const database = memoryAdapter({ user: [], session: [], account: [], verification: [], apikey: [] });
const auth = betterAuth({
  secret: process.env.BENCH_SECRET,
  baseURL: "http://127.0.0.1",
  database,
  logger: { level: "error" },
  emailAndPassword: { enabled: true },
  plugins: [apiKey({ rateLimit: { enabled: true, timeWindow: 3_600_000, maxRequests: 1_000_000_000 } })],
});

const owner = await auth.api.signUpEmail({
  body: { email: "alice@example.com", password: process.env.BENCH_SECRET, name: "alice" },
});
const keys = [];
for (let made = 0; made < count; made += 1) {
  const one = await auth.api.createApiKey({ body: { userId: owner.user.id, permissions: { orders: ["read", "list"] } } });
  keys.push(one.key);
}

const server = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    const { key } = JSON.parse(Buffer.concat(parts));
    const verdict = await auth.api.verifyApiKey({ body: { key, permissions: { orders: ["read"] } } });
    const body = Buffer.from(JSON.stringify({ valid: verdict.valid, owner: verdict.key?.referenceId }));
    response.writeHead(verdict.valid ? 200 : 401, { "content-type": "application/json", "content-length": body.length });
    response.end(body);
  });
});
server.listen(port, "127.0.0.1", () => console.log(JSON.stringify(keys)));
