// Puts the page together: who asks, what is known, what is shown, and when to look again.

import { Api, Problem } from "./api.js";
import { announce, setAttribute, setText } from "./dom.js";
import { Identity } from "./identity.js";
import { webUrl } from "./job_card.js";
import { JobStore } from "./job_store.js";
import { JobsView } from "./jobs_view.js";
import { Live } from "./live.js";
import { Overview, showConnection } from "./overview.js";
import { problemBox } from "./problem_view.js";
import { StartForm } from "./start_form.js";

const BASE = new URL("..", import.meta.url);
const TICK_MS = 1_000;
const STATS_MS = 10_000;
const HEALTH_MS = 30_000;
const QUEUE_MS = 5_000; // places in the queue change without an event of the job's own
const DETAIL_MS = 150; // several events of one job are one question
const THRIFTY = 0.25; // with less of the rate limit left than this, all of that comes four times more seldom

class Page {
  #identity;
  #api;
  #store = new JobStore();
  #jobs;
  #overview;
  #live;
  #details = new Map(); // timers by job
  #signedOut = false;
  #scarce = false;
  #last = { stats: -Infinity, health: -Infinity, queue: -Infinity };

  constructor(config) {
    this.#identity = new Identity(config.authMode, sessionStore());
    this.#api = new Api(BASE, this.#identity, { onUnauthenticated: () => this.#askWho() });
    this.#overview = new Overview(this.#api);
    const shownRates = this.#api.onRateLimit;
    this.#api.onRateLimit = (rates) => {
      this.#scarce = rates.remaining < rates.limit * THRIFTY;
      shownRates(rates);
    };
    const actions = {
      api: this.#api,
      now: () => this.#overview.now(),
      complete: (job) => this.#askDetail(job.jobId),
      cancel: (job) => this.#cancel(job),
      retry: (job) => this.#retry(job),
      download: (job) => this.#download(job),
    };
    this.#jobs = new JobsView(this.#api, this.#store, actions);
    new StartForm(this.#api, config, (started) => this.#onStarted(started));
    this.#live = new Live(this.#api, {
      onState: (state) => showConnection(this.#signedOut ? "out" : state),
      onSnapshot: (items) => {
        for (const item of items) this.#store.merge(item);
        this.#jobs.changed();
      },
      onEvent: (kind, data) => this.#onEvent(kind, data),
      poll: () => this.#jobs.refresh(),
    });
    this.#wireIdentity();
    setText(document.getElementById("version"), config.version);
    document.getElementById("mock").hidden = !config.mockStorage;
  }

  async start() {
    this.#showWho();
    this.#signedOut = false;
    this.#last = { stats: -Infinity, health: -Infinity, queue: -Infinity };
    // The clock comes with the numbers, and what the list says of times counts on it.
    await this.#look();
    if (!this.#signedOut) await this.#jobs.reset();
    if (!this.#signedOut) this.#live.restart();
  }

  run() {
    setInterval(() => {
      if (document.hidden) return;
      this.#jobs.tick();
      this.#look();
    }, TICK_MS);
  }

  // Asks for what is old enough.
  async #look() {
    const now = performance.now();
    const factor = this.#scarce ? 4 : 1;
    const due = (name, ms) => {
      if (now - this.#last[name] < ms * factor) return false;
      this.#last[name] = now;
      return true;
    };
    const asked = [];
    if (due("health", HEALTH_MS)) asked.push(this.#overview.readHealth());
    if (!this.#signedOut && due("stats", STATS_MS)) asked.push(this.#overview.readStats());
    if (!this.#signedOut && this.#live.state === "live" && this.#waits() && due("queue", QUEUE_MS)) asked.push(this.#refreshQueue());
    await Promise.all(asked);
  }

  #waits() {
    return [...this.#store.values()].some((job) => job.state === "queued" && !job.suspended);
  }

  async #refreshQueue() {
    try {
      const { items } = await this.#api.get("v1/jobs?state=queued&limit=50");
      for (const item of items) this.#store.merge(item);
      this.#jobs.changed();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
    }
  }

  #onEvent(kind, data) {
    if (kind === "dropped") return;
    if (!this.#store.apply(kind, data)) this.#askDetail(data.jobId);
    this.#jobs.changed();
  }

  #askDetail(jobId) {
    if (this.#details.has(jobId)) return;
    this.#details.set(jobId, setTimeout(async () => {
      this.#details.delete(jobId);
      try {
        this.#store.merge(await this.#api.get(`v1/jobs/${encodeURIComponent(jobId)}`));
        this.#jobs.changed();
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
      }
    }, DETAIL_MS));
  }

  async #onStarted({ jobId, totalFileIds, estimatedTime }) {
    announce(`Job ${jobId.slice(0, 8)} is queued, with ${totalFileIds} files. Estimated time: ${estimatedTime}.`);
    try {
      this.#store.merge(await this.#api.get(`v1/jobs/${encodeURIComponent(jobId)}`));
      this.#jobs.changed();
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // an event will bring it
    }
  }

  async #cancel(job) {
    await this.#api.json("DELETE", `v1/jobs/${encodeURIComponent(job.jobId)}`);
    this.#store.merge(await this.#api.get(`v1/jobs/${encodeURIComponent(job.jobId)}`));
    this.#jobs.changed();
  }

  async #retry(job) {
    const started = await this.#api.json("POST", `v1/jobs/${encodeURIComponent(job.jobId)}/retry`);
    await this.#onStarted(started);
    this.#jobs.focus(started.jobId);
  }

  // The URL is a secret for some minutes: asked for when it is wanted, followed, and kept nowhere.
  async #download(job) {
    const { downloadUrl } = await this.#api.get(`v1/download/result/${encodeURIComponent(job.jobId)}`);
    const url = webUrl(downloadUrl);
    if (url === null) {
      throw new Problem({ status: 0, title: "No download", message: "The API answered with an address that is none of the web." });
    }
    announce("The download begins.");
    window.location.assign(url);
  }

  #wireIdentity() {
    const form = document.getElementById("identity");
    const field = document.getElementById("identity-value");
    const fault = document.getElementById("identity-fault");
    const asked = this.#identity.form;
    if (asked) {
      setText(document.getElementById("identity-label"), asked.label);
      setText(document.getElementById("identity-hint"), asked.hint);
      field.type = this.#identity.secret ? "password" : "text";
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const good = this.#identity.set(field.value);
      setAttribute(field, "aria-invalid", !good && "true");
      setText(fault, good ? "" : `This is no ${asked.label.toLowerCase()}.`);
      if (!good) return field.focus();
      field.value = "";
      form.hidden = true;
      document.getElementById("main").focus();
      this.start();
    });
    document.getElementById("sign-out").addEventListener("click", () => {
      this.#identity.clear();
      this.#askWho({ left: true });
    });
  }

  // Once for all requests that were refused together.
  #askWho({ left = false } = {}) {
    if (this.#signedOut) return;
    this.#signedOut = true;
    this.#live.stop();
    const wasKnown = this.#identity.known;
    this.#identity.clear();
    this.#store.clear();
    this.#jobs.draw();
    this.#showWho();
    showConnection("out");
    const form = document.getElementById("identity");
    form.hidden = !this.#identity.form;
    setText(document.getElementById("identity-why"), wasKnown ? "The API did not accept it. Try again." : left ? "You are signed out." : "The API wants to know who asks, and nothing in front of it says so.");
    announce("Sign in to see jobs.");
    document.getElementById("identity-value").focus();
  }

  #showWho() {
    const { known, shown } = this.#identity;
    document.getElementById("who").hidden = !known;
    setText(document.getElementById("who-name"), known ? shown : "");
  }
}

// A browser may forbid it; then who asks is known until the page is left.
function sessionStore() {
  try {
    return sessionStorage;
  } catch {
    return null;
  }
}

try {
  const answer = await fetch(new URL("dashboard/config.json", BASE), { cache: "no-store" });
  if (!answer.ok) throw new TypeError(`HTTP ${answer.status}`);
  const page = new Page(await answer.json());
  page.run();
  await page.start();
} catch (error) {
  const box = problemBox({ title: "The page could not start", message: `${error.message}. Reload it to try again.` }, { alert: true });
  document.getElementById("jobs-problem").replaceChildren(box);
  throw error;
}
