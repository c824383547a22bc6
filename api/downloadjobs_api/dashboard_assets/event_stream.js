// Server-Sent Events by fetch, since EventSource can send no header. Pure but for `read`.

export const EVENT_STREAM = "text/event-stream";

const BACKOFF_MS = 500;
const LONGEST_MS = 30_000;

// Reads the stream's text in pieces, as they come (WHATWG HTML, 9.2.6).
export class EventParser {
  #rest = "";
  #event = "";
  #data = [];
  #id;
  lastEventId = "";
  retryMs = null;

  // The events that the piece completes, as {id, event, data}.
  feed(piece) {
    const events = [];
    let text = this.#rest + piece;
    // A CR at the end may be half of a line's end.
    const open = text.endsWith("\r") ? 1 : 0;
    const lines = text.slice(0, text.length - open).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() + text.slice(text.length - open);
    for (const line of lines) {
      const event = this.#line(line);
      if (event) events.push(event);
    }
    return events;
  }

  #line(line) {
    if (line === "") return this.#end();
    if (line.startsWith(":")) return null;
    const at = line.indexOf(":");
    const name = at < 0 ? line : line.slice(0, at);
    const value = at < 0 ? "" : line.slice(at + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
    return null;
  }

  #end() {
    if (this.#id !== undefined) this.lastEventId = this.#id;
    const event = this.#data.length
      ? { id: this.lastEventId, event: this.#event || "message", data: this.#data.join("\n") }
      : null;
    this.#event = "";
    this.#data = [];
    this.#id = undefined;
    return event;
  }
}

// How long to wait before the attempt after so many failed ones. Random, so that not all readers come at once.
export function backoff(failures, random = Math.random()) {
  return Math.min(LONGEST_MS, BACKOFF_MS * 2 ** failures) * (0.5 + random / 2);
}

// Hands each event of an answer's body to `onEvent`, until it ends. `onBytes` is told that something came.
export async function read(body, parser, onEvent, onBytes) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes();
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) onEvent(event);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
