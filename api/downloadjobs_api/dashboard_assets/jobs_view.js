// The list of jobs: its filter, its pages, and a card for each job.

import { Problem } from "./api.js";
import { announce, arrange, h, setAttribute, setText } from "./dom.js";
import { count } from "./format.js";
import { JobCard } from "./job_card.js";
import { FILTERS } from "./job_store.js";
import { announcement } from "./job_text.js";
import { problemBox } from "./problem_view.js";

const PAGE = 20;
const DRAW_MS = 50;

export class JobsView {
  #api;
  #store;
  #actions;
  #cards = new Map();
  #filter = "all";
  #pages = {}; // by filter: {cursor, horizon}; a cursor of null is the end
  #timer = null;
  #loading = 0; // the number of the newest request, so that an older answer counts no more
  #list = document.getElementById("jobs");
  #empty = document.getElementById("jobs-empty");
  #more = document.getElementById("jobs-more");
  #problem = document.getElementById("jobs-problem");
  #seen = new Map();

  constructor(api, store, actions) {
    this.#api = api;
    this.#store = store;
    this.#actions = actions;
    for (const choice of document.querySelectorAll("#filter input")) {
      choice.addEventListener("change", () => this.#choose(choice.value));
    }
    this.#more.addEventListener("click", () => this.loadMore());
  }

  // Forgets everything, as for another user, and reads the first page.
  async reset() {
    this.#store.clear();
    this.#seen.clear();
    this.#pages = {};
    this.#cards.clear();
    this.draw();
    await this.#load({ first: true });
  }

  // The newest jobs again. Throws a Problem.
  async refresh() {
    const { items, nextCursor } = await this.#ask("all");
    for (const item of items) this.#store.merge(item);
    this.#pages.all ??= { cursor: nextCursor, horizon: nextCursor ? (items.at(-1)?.createdAt ?? "") : "" };
    this.#problem.replaceChildren();
    this.changed();
  }

  async loadMore() {
    const before = this.#shown().length;
    await this.#load({});
    const card = this.#cards.get(this.#shown()[before]?.jobId);
    if (card && (this.#more.hidden || document.activeElement === this.#more)) card.focus();
  }

  changed() {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.draw();
    }, DRAW_MS);
  }

  tick() {
    for (const job of this.#shown()) this.#cards.get(job.jobId)?.tick();
  }

  focus(jobId) {
    this.draw();
    this.#cards.get(jobId)?.focus();
  }

  draw() {
    for (const job of this.#store.values()) {
      const said = announcement(this.#seen.get(job.jobId), job);
      if (said) announce(said);
      this.#seen.set(job.jobId, job);
    }
    const shown = this.#shown();
    arrange(this.#list, shown.map((job) => this.#draw(job)));
    const page = this.#pages[this.#filter];
    this.#empty.hidden = shown.length > 0 || !page;
    setText(document.getElementById("jobs-empty-text"), this.#filter === "all" ? "No jobs yet. Start one, and watch it here." : "No jobs of this kind.");
    this.#more.hidden = !page?.cursor;
    setText(document.getElementById("jobs-count"), shown.length ? `${count(shown.length)}${page?.cursor ? "+" : ""}` : "");
  }

  #draw(job) {
    let card = this.#cards.get(job.jobId);
    if (card) card.update(job);
    else this.#cards.set(job.jobId, (card = new JobCard(job, this.#actions)));
    card.item ??= h("li", {}, card.element);
    return card.item;
  }

  #shown() {
    return this.#store.list(this.#filter, this.#pages[this.#filter]?.horizon ?? "");
  }

  async #choose(filter) {
    this.#filter = filter;
    this.draw();
    if (!this.#pages[filter]) await this.#load({ first: true });
    announce(`${count(this.#shown().length)} jobs shown.`);
  }

  async #load({ first = false }) {
    const filter = this.#filter;
    const number = ++this.#loading;
    setAttribute(this.#list, "aria-busy", "true");
    try {
      const { items, nextCursor } = await this.#ask(filter, first ? null : this.#pages[filter]?.cursor);
      if (number !== this.#loading) return;
      for (const item of items) this.#store.merge(item);
      const last = items.at(-1)?.createdAt ?? this.#pages[filter]?.horizon ?? "";
      this.#pages[filter] = { cursor: nextCursor ?? null, horizon: nextCursor ? last : "" };
      this.#problem.replaceChildren();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (number === this.#loading && error.status !== 401) this.#problem.replaceChildren(problemBox(error, { alert: true }));
    } finally {
      if (number === this.#loading) setAttribute(this.#list, "aria-busy", null);
    }
    this.draw();
  }

  async #ask(filter, cursor) {
    const query = new URLSearchParams({ limit: String(PAGE) });
    if (FILTERS[filter].length) query.set("state", FILTERS[filter].join(","));
    if (cursor) query.set("cursor", cursor);
    return this.#api.get(`v1/jobs?${query}`);
  }
}
