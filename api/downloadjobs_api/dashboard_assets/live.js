// Keeps the page up to date: by one event stream, and by polling while there is none.

import { EVENT_STREAM, EventParser, backoff, read } from "./event_stream.js";
import { Problem, retryAfter } from "./api.js";

const PATH = "v1/events";
const SILENCE_MS = 45_000; // a comment comes every 15 s: after three the stream is dead, though the socket may not know
const POLL_MS = 5_000;
const REFUSED_MS = 30_000; // how long a server that refuses streams is left alone, if it does not say
const ABSENT_MS = 300_000; // the same for one that has none
const HIDDEN_MS = 60_000; // a tab that nobody looks at gives its connection back: browsers have six to a host

export class Live {
  #api;
  #handlers;
  #stop = null;
  #state = "";
  #parser = new EventParser();
  #hiddenTimer = null;

  // onSnapshot(items), onEvent(kind, data), onState("connecting" | "live" | "polling" | "offline" | "paused"),
  // and poll(), which asks for the newest jobs and throws a Problem where it cannot.
  constructor(api, handlers) {
    this.#api = api;
    this.#handlers = handlers;
    document.addEventListener("visibilitychange", () => this.#onVisibility());
  }

  get state() {
    return this.#state;
  }

  // For another user: nothing of the stream before counts.
  restart() {
    this.stop();
    this.#parser = new EventParser();
    this.#start();
  }

  stop() {
    this.#stop?.abort();
    this.#stop = null;
  }

  #start() {
    const stop = new AbortController();
    this.#stop = stop;
    this.#set("connecting");
    this.#run(stop.signal);
  }

  #onVisibility() {
    clearTimeout(this.#hiddenTimer);
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => {
        if (!this.#stop) return;
        this.stop();
        this.#set("paused");
      }, HIDDEN_MS);
    } else if (this.#state === "paused") {
      this.#start();
    }
  }

  async #run(stopped) {
    let failures = 0;
    while (!stopped.aborted) {
      const outcome = await this.#connect(stopped, () => (failures = 0));
      if (stopped.aborted || outcome.signedOut) return;
      // After an ordered end the stream itself said how long; after a broken one nobody did.
      const wait = outcome.waitMs ?? outcome.pauseMs ?? backoff(failures);
      failures += 1;
      await this.#pollFor(wait, outcome.waitMs !== undefined || failures > 1, stopped);
    }
  }

  // One stream, from its request to its end. Says how long to wait, if the server did.
  async #connect(stopped, onOpen) {
    const ended = new AbortController();
    const end = () => ended.abort();
    stopped.addEventListener("abort", end);
    let watchdog = setTimeout(end, SILENCE_MS);
    try {
      const { lastEventId } = this.#parser;
      const answer = await this.#api.fetch(PATH, {
        signal: ended.signal,
        headers: { accept: EVENT_STREAM, ...(lastEventId ? { "last-event-id": lastEventId } : {}) },
      });
      if (answer.status === 401) return { signedOut: true };
      const streams = answer.status === 200 && (answer.headers.get("content-type") ?? "").startsWith(EVENT_STREAM);
      if (!streams || !answer.body) {
        await answer.body?.cancel();
        const absent = answer.ok || [404, 405, 406, 501].includes(answer.status);
        const said = retryAfter(answer.headers);
        return { waitMs: said !== null ? said * 1000 : absent ? ABSENT_MS : REFUSED_MS };
      }
      const parser = new EventParser();
      parser.lastEventId = lastEventId;
      this.#parser = parser;
      this.#set("live");
      const onBytes = () => {
        onOpen();
        clearTimeout(watchdog);
        watchdog = setTimeout(end, SILENCE_MS);
      };
      await read(answer.body, parser, (event) => this.#take(event), onBytes);
      return { pauseMs: parser.retryMs ?? undefined };
    } catch (error) {
      // A broken stream, or none. What failed is told by what polling finds.
      if (!(error instanceof Problem || error instanceof TypeError || error.name === "AbortError")) throw error;
      return {};
    } finally {
      clearTimeout(watchdog);
      stopped.removeEventListener("abort", end);
    }
  }

  #take({ event, data }) {
    let value;
    try {
      value = JSON.parse(data);
    } catch {
      return; // of a kind that this page does not know
    }
    if (event === "snapshot") this.#handlers.onSnapshot(Array.isArray(value.items) ? value.items : [value]);
    else if (value && typeof value.jobId === "string") this.#handlers.onEvent(event, value);
  }

  // Waits. A first short pause is none to tell of; in a longer one the page polls.
  async #pollFor(waitMs, tell, stopped) {
    const until = performance.now() + waitMs;
    if (!tell) this.#set("connecting");
    while (!stopped.aborted) {
      if (tell) {
        try {
          await this.#handlers.poll();
          if (!stopped.aborted) this.#set("polling");
        } catch (error) {
          if (!(error instanceof Problem)) throw error;
          if (!stopped.aborted) this.#set(error.status === 0 ? "offline" : "polling");
        }
      }
      const left = until - performance.now();
      if (left <= 0) return;
      await sleep(Math.min(left, POLL_MS), stopped);
    }
  }

  #set(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#handlers.onState(state);
  }
}

function sleep(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    }
  });
}
