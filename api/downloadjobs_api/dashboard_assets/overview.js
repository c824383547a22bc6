// The strip of numbers, the health of what the API stands on, and how the page is kept up to date.

import { Problem } from "./api.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { count, duration } from "./format.js";

const CONNECTIONS = {
  connecting: ["Connecting", "quiet", "Connecting to the event stream."],
  live: ["Live", "good", "Changes come by an event stream, as they happen."],
  polling: ["Polling", "warning", "There is no event stream now: the page asks every five seconds."],
  offline: ["Offline", "bad", "The API cannot be reached. The page goes on trying."],
  paused: ["Paused", "quiet", "The page was hidden, and goes on when it is seen again."],
  out: ["Signed out", "quiet", "The page shows nothing until somebody signs in."],
};

export function showConnection(state) {
  const [label, tone, meaning] = CONNECTIONS[state];
  const pill = document.getElementById("connection");
  pill.className = `pill ${tone}`;
  setText(pill.querySelector(".pill-text"), label);
  setAttribute(pill, "title", meaning);
  setText(document.getElementById("connection-meaning"), ` ${meaning}`);
}

export class Overview {
  #api;
  #offsetMs = 0;

  constructor(api) {
    this.#api = api;
    api.onRateLimit = ({ limit, remaining }) => this.#show("rate", `${count(remaining)}`, `of ${count(limit)}`);
  }

  // The time by the queue's clock, in ms: a browser's may be wrong by minutes.
  now() {
    return Date.now() + this.#offsetMs;
  }

  async readStats() {
    try {
      const stats = await this.#api.get("v1/stats");
      this.#offsetMs = Date.parse(stats.at) - Date.now() || 0;
      this.#show("running", count(stats.running), `of ${count(stats.slots)} slots`);
      this.#show("waiting", count(stats.waiting), stats.waiting ? `longest ${duration(stats.oldestWaitingSeconds)}` : "nobody waits");
      this.#show("finished", stats.finishedPerMinute.toFixed(stats.finishedPerMinute < 9.95 ? 1 : 0), "jobs a minute");
      this.#show("service", duration(stats.meanServiceSeconds), "a job, lately");
      return true;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      for (const name of ["running", "waiting", "finished", "service"]) this.#show(name, "–", "not known now");
      return false;
    }
  }

  async readHealth() {
    const box = document.getElementById("health");
    try {
      const health = await this.#api.get("health", { accept: (answer) => answer.ok || answer.status === 503 });
      const checks = Object.entries(health.checks ?? {});
      const good = health.status === "healthy";
      this.#showHealth(box, good, [
        ...checks.map(([name, state]) => [name, state === "ok", String(state)]),
        ...(health.mockStorage ? [["storage is a mock", null, "files are generated"]] : []),
      ]);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#showHealth(box, false, [["api", false, error.title || error.message]]);
    }
  }

  #showHealth(box, good, rows) {
    const stamp = JSON.stringify([good, rows]);
    if (box.dataset.shown === stamp) return;
    box.dataset.shown = stamp;
    box.replaceChildren(
      ...rows.map(([name, ok, state]) =>
        h(
          "li",
          { class: ok === null ? "quiet" : ok ? "good" : "bad" },
          icon(ok === null ? "info" : ok ? "check" : "cross"),
          h("span", { class: "check-name" }, name),
          h("span", { class: "quiet" }, state),
        ),
      ),
    );
    const label = document.getElementById("health-label");
    label.className = `badge ${good ? "good" : "bad"}`;
    label.replaceChildren(icon(good ? "check" : "alert"), h("span", {}, good ? "Healthy" : "Unhealthy"));
  }

  #show(name, value, note) {
    const tile = document.getElementById(`stat-${name}`);
    tile.hidden = false;
    setText(tile.querySelector(".stat-value"), value);
    setText(tile.querySelector(".stat-note"), note);
  }
}
