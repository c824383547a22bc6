import assert from "node:assert/strict";
import { test } from "node:test";
import { faultText, parseFileIds } from "./file_ids.js";

const LIMITS = { least: 10_000, most: 100_000_000, count: 1_000 };
const parse = (text) => parseFileIds(text, LIMITS);
const faults = (text) => parse(text).faults.map(faultText);

test("ids are separated by commas, semicolons, spaces and lines, in any number", () => {
  assert.deepEqual(parse(" 10003,,10004 ;10005\n\r\n10006\t10007\r").ids, [10003, 10004, 10005, 10006, 10007]);
});

test("ranges have a hyphen, a dash or two dots, and perhaps spaces around it", () => {
  for (const range of ["10003-10005", "10003–10005", "10003..10005", "10003 - 10005", "10003 .. 10005"]) {
    assert.deepEqual(parse(range), { ids: [10003, 10004, 10005], faults: [], duplicates: 0 });
  }
});

test("an id that stands twice counts once, and is told", () => {
  assert.deepEqual(parse("10003 10003 10001-10004"), { ids: [10003, 10001, 10002, 10004], faults: [], duplicates: 2 });
});

test("nothing at all is a fault", () => {
  assert.deepEqual(faults(" \n ,; "), ["Enter at least one file id."]);
});

test("every fault is told with its line, and good ids beside it are read", () => {
  const { ids, faults: found } = parse("abc 10003\n9999\n1e5 -10003 10003.5 0x2711");
  assert.deepEqual(ids, [10003]);
  assert.deepEqual(found.map(({ line, token }) => [line, token]), [
    [1, "abc"], [2, "9999"], [3, "1e5"], [3, "-10003"], [3, "10003.5"], [3, "0x2711"],
  ]);
});

test("limits are those that the API has", () => {
  assert.deepEqual(parse("10000 100000000").ids, [10000, 100000000]);
  assert.match(faults("9999")[0], /is below 10,000/);
  assert.match(faults("100000001")[0], /is above 100,000,000/);
  assert.match(faults("9999-10001")[0], /begins below/);
  assert.match(faults("99999999-100000001")[0], /ends above/);
});

test("1,000 ids are allowed and 1,001 are not, in one range or in several", () => {
  assert.equal(parse("10000-10999").ids.length, 1000);
  assert.deepEqual(faults("10000-10999 10999").length, 0);
  assert.match(faults("10000-10999 11000")[0], /These are 1,001 ids/);
  assert.match(faults("10000-11000")[0], /has 1,001 ids/);
});

test("a huge range is refused without being written out", () => {
  const before = performance.now();
  assert.match(faults("10000-100000000")[0], /99,990,001 ids/);
  assert.ok(performance.now() - before < 100);
});

test("a number that is too long for a number is refused", () => {
  assert.match(faults("9".repeat(400))[0], /is above/);
  assert.ok(faults("9".repeat(400))[0].length < 120);
});

test("a range that runs backwards is a fault", () => {
  assert.match(faults("20010-20000")[0], /runs backwards/);
});
