import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser, backoff, read } from "./event_stream.js";

const STREAM = 'retry: 1500\n\n: hello\n\nid: 1-0\nevent: progress\ndata: {"a":1}\n\nid: 2-0\ndata: one\ndata: two\n\n';
const EVENTS = [
  { id: "1-0", event: "progress", data: '{"a":1}' },
  { id: "2-0", event: "message", data: "one\ntwo" },
];

test("a stream is read whole", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.feed(STREAM), EVENTS);
  assert.deepEqual([parser.lastEventId, parser.retryMs], ["2-0", 1500]);
});

test("it may be cut anywhere, and lines may end in any of three ways", () => {
  for (const end of ["\n", "\r\n", "\r"]) {
    const text = STREAM.replaceAll("\n", end);
    for (let size = 1; size < 12; size += 1) {
      const parser = new EventParser();
      const found = [];
      for (let from = 0; from < text.length; from += size) found.push(...parser.feed(text.slice(from, from + size)));
      found.push(...parser.feed(":")); // a CR at the very end waits for what follows
      assert.deepEqual(found, EVENTS, `${JSON.stringify(end)} in pieces of ${size}`);
    }
  }
});

test("an event without an id has the last one, and an empty id takes it back", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.feed("id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n").map(({ id }) => id), ["7", "7", ""]);
});

test("an event that is not whole does not count, nor does its id", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.feed("id: 1\ndata: a\n\nid: 2\ndata: b\n").length, 1);
  assert.equal(parser.lastEventId, "1");
});

test("comments, unknown fields, empty events and odd retries are left alone", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.feed(":\n\nfoo: bar\n\nevent: x\n\nretry: soon\n\nid: a\0b\ndata: x\n\n"), [{ id: "", event: "message", data: "x" }]);
  assert.equal(parser.retryMs, null);
});

test("pauses double up to half a minute, and are random", () => {
  assert.deepEqual([backoff(0, 1), backoff(0, 0), backoff(1, 1), backoff(5, 1), backoff(50, 1)], [500, 250, 1000, 16_000, 30_000]);
});

test("a body is read to its end, with characters that are cut", async () => {
  const bytes = new TextEncoder().encode("data: ü€\n\n");
  const body = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  const found = [];
  let pieces = 0;
  await read(body, new EventParser(), (event) => found.push(event.data), () => (pieces += 1));
  assert.deepEqual([found, pieces], [["ü€"], bytes.length]);
});
