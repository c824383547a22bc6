import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, count, duration, moment, ordinal, plural, roughly, short } from "./format.js";

const table = (name, call, rows) =>
  test(name, () => {
    for (const [value, text] of rows) assert.equal(call(value), text, `of ${value}`);
  });

table("bytes go by powers of 1000, and never show 1000 of a unit", bytes, [
  [0, "0 bytes"], [999, "999 bytes"], [1000, "1.0 kB"], [1_500_000, "1.5 MB"], [99_949_999, "99.9 MB"],
  [99_960_000, "100 MB"], [999_400_000, "999 MB"], [999_600_000, "1.0 GB"], [4_510_000_000, "4.5 GB"], [2e15, "2.0 PB"],
]);
table("durations have two parts at most", duration, [
  [0, "0 ms"], [0.0421, "42 ms"], [0.5, "0.5 s"], [9.94, "9.9 s"], [38.2, "38 s"], [59.4, "59 s"], [59.7, "1 min"],
  [125, "2 min 5 s"], [600, "10 min"], [3599, "1 h"], [5400, "1 h 30 min"], [86_400, "24 h"], [200_000, "2 days"],
]);
table("an estimate is rounded as it grows", roughly, [
  [0.2, "a second"], [7.4, "7 s"], [12.4, "10 s"], [13, "15 s"], [57, "55 s"], [58, "1 min"], [200, "3 min"], [3700, "1 h"],
]);
table("times ago", ago, [
  [0, "just now"], [20, "20 s ago"], [119, "1 min ago"], [7200, "2 h ago"], [90_000, "1 day ago"], [200_000, "2 days ago"],
]);
table("ordinals", ordinal, [[1, "1st"], [2, "2nd"], [3, "3rd"], [4, "4th"], [11, "11th"], [12, "12th"], [13, "13th"], [21, "21st"], [112, "112th"], [1003, "1,003rd"]]);

test("numbers have commas, and nouns their number", () => {
  assert.equal(count(1234567), "1,234,567");
  assert.deepEqual([plural(0, "file"), plural(1, "file"), plural(2, "file"), plural(2, "entry", "entries")], ["0 files", "1 file", "2 files", "2 entries"]);
});

test("a moment that is none is shown as it is", () => {
  assert.equal(moment("soon"), "soon");
  assert.match(moment("2026-11-24T09:30:00.000Z", "en-GB"), /2026/);
});

test("a short id is its beginning", () => {
  assert.equal(short("1f2f879b-6de6-4913-84ea-0f5cd1d8e9aa"), "1f2f879b…");
  assert.equal(short("checkout-7f3a"), "checkout-7f3a");
});
