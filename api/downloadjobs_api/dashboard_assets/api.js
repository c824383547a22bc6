// Requests to the API that serves the page. Paths are relative to it, so that it may lie behind a prefix.

const TIMEOUT_MS = 30_000;

// What an answer says is wrong (RFC 9457); status 0 where there was no answer.
export class Problem extends Error {
  constructor({ status, code, title, message, errors, requestId, traceId, retryAfter }) {
    super(message);
    this.name = "Problem";
    Object.assign(this, { status, code, title, errors: errors ?? [], requestId, traceId, retryAfter });
  }
}

export class Api {
  #base;
  #identity;

  // `onUnauthenticated` is told of each 401, `onRateLimit` of {limit, remaining} where answers have them.
  constructor(base, identity, { onUnauthenticated = () => {}, onRateLimit = () => {} } = {}) {
    this.#base = base;
    this.#identity = identity;
    this.onUnauthenticated = onUnauthenticated;
    this.onRateLimit = onRateLimit;
  }

  get(path, options) {
    return this.json("GET", path, options);
  }

  // The answer's JSON, or null where it has none. Throws a Problem.
  async json(method, path, { body, headers = {}, accept = (answer) => answer.ok } = {}) {
    const answer = await this.fetch(path, {
      method,
      signal: AbortSignal.timeout(TIMEOUT_MS),
      headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (!accept(answer)) throw await this.problem(answer);
    if (answer.status === 204) return null;
    try {
      return await answer.json();
    } catch {
      throw new Problem({ status: 0, title: "The answer is broken", message: "The API's answer could not be read." });
    }
  }

  // The bare answer, with the user's identity sent. Throws a Problem where there is none.
  async fetch(path, options) {
    let answer;
    try {
      answer = await fetch(new URL(path, this.#base), {
        ...options,
        cache: "no-store",
        credentials: "same-origin",
        redirect: "error",
        headers: { ...options.headers, ...this.#identity.headers() },
      });
    } catch (error) {
      if (options.signal?.aborted && error.name !== "TimeoutError") throw error;
      const late = error.name === "TimeoutError";
      throw new Problem({
        status: 0,
        title: late ? "No answer in time" : "The API cannot be reached",
        message: late ? "The API took too long to answer." : "The network, or the API, is down. The page goes on trying.",
      });
    }
    const rates = rateLimit(answer.headers);
    if (rates) this.onRateLimit(rates);
    if (answer.status === 401) this.onUnauthenticated();
    return answer;
  }

  async problem(answer) {
    let body = {};
    if ((answer.headers.get("content-type") ?? "").includes("json")) {
      body = (await answer.json().catch(() => null)) ?? {};
    }
    return new Problem({
      status: answer.status,
      code: text(body.error),
      title: text(body.title) || `HTTP ${answer.status}`,
      message: text(body.message) || text(body.detail) || "The API refused the request, and did not say why.",
      errors: Array.isArray(body.errors) ? body.errors : [],
      requestId: text(body.requestId) || answer.headers.get("x-request-id") || "",
      traceId: text(body.traceId),
      retryAfter: retryAfter(answer.headers),
    });
  }
}

const text = (value) => (typeof value === "string" ? value : "");

// Seconds, or null. The API sends no dates.
export function retryAfter(headers) {
  const value = headers.get("retry-after");
  return value !== null && /^\d+$/.test(value) ? Number(value) : null;
}

// {limit, remaining} by the headers of RateLimit-…, or null.
export function rateLimit(headers) {
  const limit = Number.parseInt(headers.get("ratelimit-limit") ?? "", 10);
  const remaining = Number.parseInt(headers.get("ratelimit-remaining") ?? "", 10);
  return Number.isNaN(limit) || Number.isNaN(remaining) ? null : { limit, remaining };
}

// 128 random bits. crypto.randomUUID is only there on pages by HTTPS.
export function randomKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
