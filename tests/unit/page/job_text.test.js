import assert from "node:assert/strict";
import { test } from "node:test";
import { announcement, bar, progressParts, stateOf, title } from "./job_text.js";

const NOW = Date.UTC(2026, 10, 24, 9, 30, 0);
const at = (seconds) => new Date(NOW + seconds * 1000).toISOString();
const job = (state, changes = {}) => ({ jobId: "1f2f879b-6de6", state, createdAt: at(-60), updatedAt: at(-1), attempt: 1, maxAttempts: 3, totalFileIds: 3, failedFiles: 0, progress: { processed: 0, total: 3, bytes: 0, bytesTotal: 0 }, ...changes });
const line = (...given) => progressParts(job(...given), NOW).join(" · ");

test("every state has a name, and a new one is shown as it is", () => {
  for (const state of ["queued", "processing", "retrying", "completed", "completed_with_errors", "failed", "cancelled", "expired"]) {
    assert.notEqual(stateOf(job(state)).label, state);
  }
  assert.equal(stateOf(job("resting")).label, "resting");
  assert.equal(stateOf(job("queued", { suspended: true })).label, "Suspended");
});

test("a waiting job says why it waits", () => {
  const queue = (place, more = {}) => ({ queue: { place, ...more } });
  assert.equal(line("queued", queue("ready", { ahead: 0, startsInSeconds: 0.2 })), "Next in the queue · starts as soon as a worker is free");
  assert.equal(line("queued", queue("ready", { ahead: 11, startsInSeconds: 65 })), "12th in the queue · starts in about 1 min");
  assert.match(line("queued", queue("parked")), /your other jobs/);
  assert.match(line("queued", queue("joined")), /the same result/);
  assert.match(line("queued", queue("delayed")), /next attempt/);
  assert.match(line("queued", { suspended: true }), /Held/);
  assert.match(line("queued", { queue: null }), /place in the queue/);
});

test("a retry says when it comes", () => {
  assert.equal(line("retrying", { retryAt: at(8) }), "Tries again in 8 s · attempt 1 of 3 failed");
  assert.match(line("retrying", { retryAt: at(-8) }), /Tries again now/);
  assert.match(line("retrying", { retryAt: null }), /next attempt/);
});

test("an end says how long it took, what is missing, and how long the result is kept", () => {
  const ended = { startedAt: at(-40), finishedAt: at(-2), expiresAt: at(3600), failedFiles: 2 };
  assert.equal(line("completed_with_errors", ended), "2 files missing · took 38 s · kept for 1 h");
});

test("a bar says nothing before anything is known, and is full only at the end", () => {
  assert.deepEqual(bar(job("processing")), { value: null, text: "not begun" });
  assert.equal(bar(job("processing", { progress: { processed: 2, total: 3, bytes: 999, bytesTotal: 1000 } })).text, "99 %");
});

test("titles have a size once it is known", () => {
  assert.equal(title(job("queued", { totalFileIds: 1 })), "1 file");
  assert.equal(title(job("completed", { resultBytes: 2_000_000 })), "3 files · 2.0 MB");
});

test("only a new state of a known job is announced", () => {
  assert.equal(announcement(undefined, job("completed")), "");
  assert.equal(announcement(job("processing"), job("processing")), "");
  assert.equal(announcement(job("processing"), job("failed")), "Job 1f2f879b has failed.");
});
