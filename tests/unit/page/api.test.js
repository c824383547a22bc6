import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";
import { Api, Problem, randomKey, rateLimit, retryAfter } from "./api.js";

const BASE = "https://downloads.example.com/prefix/";
const original = globalThis.fetch;
let asked;
let answer;

beforeEach(() => {
  asked = [];
  globalThis.fetch = async (url, options) => {
    asked.push([String(url), options]);
    if (answer instanceof Error) throw answer;
    return answer;
  };
});

afterEach(() => {
  globalThis.fetch = original;
});

const api = (handlers) => new Api(BASE, { headers: () => ({ "x-user-id": "ada" }) }, handlers);
const json = (body, init = {}) => new Response(JSON.stringify(body), { ...init, headers: { "content-type": "application/json", ...init.headers } });

test("paths are relative to where the page lies, and every request says who asks", async () => {
  answer = json({ good: true });
  assert.deepEqual(await api().get("v1/jobs?limit=5"), { good: true });
  assert.equal(asked[0][0], `${BASE}v1/jobs?limit=5`);
  assert.equal(asked[0][1].headers["x-user-id"], "ada");
});

test("a problem is told with its ids, fields and pause", async () => {
  answer = new Response(JSON.stringify({ title: "T", error: "invalid-body", message: "M", requestId: "r", traceId: "t", errors: [{ field: "f", message: "m" }] }), {
    status: 400,
    headers: { "content-type": "application/problem+json", "retry-after": "7" },
  });
  const found = await api().get("x").catch((error) => error);
  assert.ok(found instanceof Problem);
  const { status, code, title, message, requestId, traceId, errors, retryAfter: pause } = found;
  assert.deepEqual({ status, code, title, message, requestId, traceId, errors, pause }, { status: 400, code: "invalid-body", title: "T", message: "M", requestId: "r", traceId: "t", errors: [{ field: "f", message: "m" }], pause: 7 });
});

test("an answer of something else in between is a problem too", async () => {
  answer = new Response("<html>Bad Gateway</html>", { status: 502, headers: { "content-type": "text/html" } });
  const found = await api().get("x").catch((error) => error);
  assert.deepEqual([found.status, found.title], [502, "HTTP 502"]);
  answer = new Response("<html>", { status: 200 });
  assert.match((await api().get("x").catch((error) => error)).message, /could not be read/);
});

test("no answer is a problem without a status", async () => {
  answer = new TypeError("Failed to fetch");
  assert.equal((await api().get("x").catch((error) => error)).status, 0);
  answer = new DOMException("late", "TimeoutError");
  assert.match((await api().get("x").catch((error) => error)).message, /too long/);
});

test("each 401 is told, and what is left of the rate limit", async () => {
  let signedOut = 0;
  let rates;
  const watched = api({ onUnauthenticated: () => (signedOut += 1), onRateLimit: (found) => (rates = found) });
  answer = json({}, { status: 401, headers: { "ratelimit-limit": "100", "ratelimit-remaining": "42" } });
  await watched.get("x").catch(() => {});
  assert.deepEqual([signedOut, rates], [1, { limit: 100, remaining: 42 }]);
});

test("headers that are odd say nothing", () => {
  assert.equal(rateLimit(new Headers({ "ratelimit-limit": "100" })), null);
  assert.equal(retryAfter(new Headers({ "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT" })), null);
  assert.equal(retryAfter(new Headers({ "retry-after": "0" })), 0);
});

test("keys are 128 random bits in hexadecimal", () => {
  const keys = new Set(Array.from({ length: 100 }, randomKey));
  assert.equal(keys.size, 100);
  for (const key of keys) assert.match(key, /^[0-9a-f]{32}$/);
});
