import assert from "node:assert/strict";
import { test } from "node:test";
import { JobStore, fraction, secondsLeft } from "./job_store.js";

const at = (seconds) => new Date(Date.UTC(2026, 10, 24, 9, 30, 0) + seconds * 1000).toISOString();
const progress = (bytes, bytesTotal = 1000) => ({ processed: 1, total: 10, bytes, bytesTotal });

function job(jobId, state, changes = {}) {
  return { jobId, state, createdAt: at(0), updatedAt: at(0), progress: progress(0), queue: null, ...changes };
}

function storeOf(...jobs) {
  const store = new JobStore();
  for (const each of jobs) store.merge(each);
  return store;
}

test("jobs are listed newest first, and by their ids where they came together", () => {
  const store = storeOf(job("b", "queued"), job("a", "queued"), job("c", "queued", { createdAt: at(5) }));
  assert.deepEqual(store.list("all").map(({ jobId }) => jobId), ["c", "a", "b"]);
});

test("a filter shows its states, and nothing beyond the last page that was loaded", () => {
  const store = storeOf(job("a", "failed"), job("b", "completed", { createdAt: at(5) }), job("c", "expired", { createdAt: at(9) }));
  assert.deepEqual(store.list("ended").map(({ jobId }) => jobId), ["c", "a"]);
  assert.deepEqual(store.list("ended", at(1)).map(({ jobId }) => jobId), ["c"]);
});

test("an event changes what it tells, and leaves the rest", () => {
  const store = storeOf(job("a", "processing", { worker: "w", requestId: "r" }));
  assert.equal(store.apply("progress", { jobId: "a", state: "processing", progress: progress(500), updatedAt: at(1) }), true);
  const { progress: now, worker, requestId } = store.get("a");
  assert.deepEqual([now.bytes, worker, requestId], [500, "w", "r"]);
});

test("an event of an unknown job, or of an end, wants the whole record", () => {
  const store = storeOf(job("a", "processing"));
  assert.equal(store.apply("progress", { jobId: "x", state: "processing", updatedAt: at(1) }), false);
  assert.equal(store.get("x"), undefined);
  assert.equal(store.apply("finished", { jobId: "a", state: "completed", updatedAt: at(1) }), false);
  assert.equal(store.get("a").state, "completed");
});

test("what is older than what is known changes nothing", () => {
  const store = storeOf(job("a", "completed", { updatedAt: at(9) }));
  assert.equal(store.merge(job("a", "processing", { updatedAt: at(8) })), false);
  assert.equal(store.apply("progress", { jobId: "a", state: "processing", updatedAt: at(8) }), true);
  assert.equal(store.get("a").state, "completed");
});

test("of two tellings of one moment an end stands", () => {
  const store = storeOf(job("a", "completed", { updatedAt: at(9) }));
  assert.equal(store.merge(job("a", "processing", { updatedAt: at(9) })), false);
});

test("a dead letter that is queued again is queued", () => {
  const store = storeOf(job("a", "failed", { updatedAt: at(9) }));
  store.apply("queued", { jobId: "a", state: "queued", updatedAt: at(20) });
  assert.equal(store.get("a").state, "queued");
});

test("a list leaves out the failed files, and takes none away", () => {
  const store = storeOf(job("a", "completed_with_errors", { failures: [{ fileId: 10003 }] }));
  store.merge(job("a", "completed_with_errors"));
  assert.equal(store.get("a").failures.length, 1);
});

test("a place in the queue may change though the job does not, and goes when it starts", () => {
  const store = storeOf(job("a", "queued", { queue: { ahead: 2 } }));
  store.merge(job("a", "queued", { queue: { ahead: 1 } }));
  assert.equal(store.get("a").queue.ahead, 1);
  store.apply("started", { jobId: "a", state: "processing", updatedAt: at(1), attempt: 1, worker: "w" });
  assert.deepEqual([store.get("a").queue, store.get("a").attempt, store.get("a").worker], [null, 1, "w"]);
});

test("speed is a running mean of bytes a second, and begins anew with an attempt", () => {
  const store = storeOf(job("a", "processing"));
  const tell = (bytes, seconds) => store.apply("progress", { jobId: "a", state: "processing", progress: progress(bytes), updatedAt: at(seconds) });
  tell(100, 1);
  assert.equal(store.get("a").speed, 100);
  tell(400, 2);
  assert.equal(store.get("a").speed, 160);
  assert.equal(secondsLeft(store.get("a"), 0), 600 / 160);
  tell(400, 2);
  assert.equal(store.get("a").speed, 160);
  tell(0, 3);
  assert.equal(store.get("a").speed, null);
});

test("without a speed the API's own estimate counts, from when it was made", () => {
  const running = job("a", "processing", { etaSeconds: 30 });
  assert.equal(secondsLeft(running, Date.parse(at(10))), 20);
  assert.equal(secondsLeft(running, Date.parse(at(60))), 0);
  assert.equal(secondsLeft({ ...running, etaSeconds: null }, Date.parse(at(10))), null);
  assert.equal(secondsLeft({ ...running, state: "queued" }, Date.parse(at(10))), null);
});

test("how far a job is goes by bytes, or by files before they are known, and never past its end", () => {
  assert.equal(fraction(job("a", "processing", { progress: progress(250) })), 0.25);
  assert.equal(fraction(job("a", "processing", { progress: progress(2000) })), 1);
  assert.equal(fraction(job("a", "processing", { progress: progress(0, 0) })), 0.1);
  assert.equal(fraction(job("a", "processing", { progress: { processed: 0, total: 10 } })), null);
  assert.equal(fraction(job("a", "queued", { progress: undefined })), null);
});
