import assert from "node:assert/strict";
import { test } from "node:test";
import { kindOf, layOut } from "./timeline.js";

const start = Date.UTC(2026, 10, 24, 9, 30, 0);
const at = (seconds) => new Date(start + seconds * 1000).toISOString();
const item = (name, from, to, changes = {}) => ({ name, at: at(from), endAt: to === null ? null : at(to), attempt: 1, status: "ok", attributes: {}, ...changes });

test("rows have their place and width in the whole", () => {
  const { rows, spanMs } = layOut([item("queued", 0, 2), item("attempt", 2, 10), item("file", 4, 5, { attributes: { fileId: 10003 } }), item("finish", 10, 10)], 0);
  assert.equal(spanMs, 10_000);
  assert.deepEqual(rows.map(({ kind, label, offset, width, seconds }) => [kind, label, offset, width, seconds]), [
    ["queued", "Queued", 0, 0.2, 2],
    ["leased", "Leased", 0.2, 0.8, 8],
    ["file", "File 10003", 0.4, 0.1, 1],
    ["finish", "Finish", 1, 0, 0],
  ]);
});

test("what lasts goes on until now", () => {
  const { rows } = layOut([item("queued", 0, 2), item("attempt", 2, null)], start + 8_000);
  assert.deepEqual([rows[1].seconds, rows[1].open, rows[0].open], [6, true, false]);
});

test("a clock that is behind gives no negative time", () => {
  const { rows } = layOut([item("queued", 0, null), item("attempt", 5, 3)], start - 60_000);
  assert.deepEqual(rows.map(({ seconds }) => seconds), [0, 0]);
});

test("attempts have numbers where there are several", () => {
  const labels = layOut([item("attempt", 0, 1, { status: "failed", attributes: { errorCode: "storage-timeout" } }), item("retrying", 1, 3), item("attempt", 3, 5, { attempt: 2 })], 0).rows.map(({ label, failed, note }) => [label, failed, note]);
  assert.deepEqual(labels, [["Leased, attempt 1", true, "storage-timeout"], ["Waits to retry", false, ""], ["Leased, attempt 2", false, ""]]);
});

test("of many files the failed and the slowest are kept, in their order", () => {
  const files = Array.from({ length: 100 }, (_, index) => item("file", index, index + (index % 10), { attributes: { fileId: index } }));
  files[50] = item("file", 50, 50, { status: "error", attributes: { fileId: 50, error: "not-found" } });
  const { rows, hidden } = layOut([item("queued", 0, 1), ...files], 0);
  assert.equal(rows.length + hidden, 101);
  assert.ok(rows.length <= 14);
  assert.ok(rows.some(({ failed, note }) => failed && note === "not-found"));
  assert.deepEqual(rows.map(({ offset }) => offset), rows.map(({ offset }) => offset).sort((a, b) => a - b));
  assert.equal(layOut([item("queued", 0, 1), ...files], 0, true).rows.length, 101);
});

test("items that cannot be read are left out, and names that are new are shown as they are", () => {
  assert.deepEqual(layOut([{ name: "x", at: "soon" }], 0), { rows: [], spanMs: 0, hidden: 0 });
  assert.equal(layOut([item("constructor", 0, 1)], 0).rows[0].label, "constructor");
  assert.equal(kindOf("toString"), "other");
});
