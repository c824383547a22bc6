// One job in the list. Made once, and changed where the job did: focus and selections stay.

import { Problem } from "./api.js";
import { button, copyable, h, icon, setAttribute, setText } from "./dom.js";
import { ago, bytes, duration, moment, plural } from "./format.js";
import { FINISHED, WITH_RESULT } from "./job_store.js";
import { bar, progressParts, stateOf, title } from "./job_text.js";
import { problemBox } from "./problem_view.js";
import { timelineView } from "./timeline_view.js";

const LEAST_MS = 2_000; // between two looks at a timeline

export class JobCard {
  #actions;
  #job;
  #parts;
  #open = false;
  #asking = false; // whether to cancel
  #timeline = null;
  #all = false;
  #completed = false;
  #loaded = { stamp: "", at: 0, busy: false };

  // `actions`: api, now(), complete(job), which asks for its whole detail, and cancel(job), retry(job) and
  // download(job), which throw a Problem.
  constructor(job, actions) {
    this.#actions = actions;
    const id = `job-${job.jobId.replace(/[^A-Za-z0-9-]/g, "_")}`;
    const badge = h("span", { class: "badge" });
    const heading = h("h3", { id: `${id}-title`, tabindex: "-1" });
    const when = h("time", { class: "quiet when" });
    const tags = h("span", { class: "tags" });
    const meter = h("progress", { class: "bar", max: "1", "aria-label": "Progress" });
    const percent = h("span", { class: "percent" });
    const line = h("p", { class: "line" });
    const problem = h("div", { class: "card-problem" });
    const outcome = h("div", {});
    const details = button("Details", { class: "plain", icon: "chevron", "aria-expanded": "false", "aria-controls": `${id}-details`, onclick: () => this.toggle() });
    details.setAttribute("aria-describedby", `${id}-title`);
    const buttons = h("div", { class: "actions", role: "group", "aria-label": "Actions" });
    const panel = h("div", { class: "details", id: `${id}-details`, hidden: true });
    this.element = h(
      "article",
      { class: "card job", "aria-labelledby": `${id}-title`, "data-job": job.jobId },
      h("header", { class: "job-head" }, badge, heading, h("code", { class: "job-id" }, h("span", { class: "sr-only" }, "Job "), job.jobId.slice(0, 8)), tags, when),
      h("div", { class: "meter" }, meter, percent),
      line,
      problem,
      outcome,
      h("footer", { class: "job-foot" }, details, buttons),
      panel,
    );
    this.#parts = { id, badge, heading, when, tags, meter, percent, line, problem, outcome, details, buttons, panel };
    this.update(job);
  }

  get open() {
    return this.#open;
  }

  focus() {
    this.#parts.heading.focus();
  }

  update(job) {
    const before = this.#job;
    this.#job = job;
    const { badge, heading, tags, meter, percent } = this.#parts;
    const state = stateOf(job);
    setAttribute(this.element, "data-tone", state.tone);
    setAttribute(this.element, "data-state", job.state);
    if (badge.dataset.shown !== state.label) {
      badge.dataset.shown = state.label;
      badge.className = `badge ${state.tone}`;
      badge.replaceChildren(icon(state.icon), h("span", {}, state.label));
    }
    setText(heading, title(job));
    const marks = [
      job.priority && job.priority !== "normal" ? `${job.priority[0].toUpperCase()}${job.priority.slice(1)} priority` : "",
      job.retryOf ? "Retry" : "",
    ].filter(Boolean);
    if (tags.textContent !== marks.join("")) tags.replaceChildren(...marks.map((mark) => h("span", { class: "tag" }, mark)));
    const ended = FINISHED.has(job.state);
    meter.parentElement.hidden = ended || job.state === "queued";
    const { value, text } = bar(job);
    if (value === null) meter.removeAttribute("value");
    else meter.value = value;
    setText(percent, text);
    this.#showError(job);
    if (!before || before.state !== job.state || before.failedFiles !== job.failedFiles || before.resultBytes !== job.resultBytes) this.#showButtons();
    this.tick();
    if (this.#open) this.#showDetails();
  }

  // What changes with the time alone.
  tick() {
    const job = this.#job;
    const now = this.#actions.now();
    const ended = FINISHED.has(job.state) && job.finishedAt;
    const at = ended ? job.finishedAt : job.createdAt;
    const { when, line } = this.#parts;
    setAttribute(when, "datetime", at);
    setAttribute(when, "title", at ? moment(at) : null);
    setText(when, at ? `${ended ? "ended" : "asked for"} ${ago(Math.max(0, (now - Date.parse(at)) / 1000))}` : "");
    setText(line, progressParts(job, now).join(" · "));
    line.hidden = line.textContent === "";
    if (this.#open && !ended) this.#loadTimeline();
  }

  toggle(open = !this.#open) {
    this.#open = open;
    const { details, panel } = this.#parts;
    setAttribute(details, "aria-expanded", String(open));
    panel.hidden = !open;
    if (open) this.#showDetails();
  }

  #showError(job) {
    const { problem } = this.#parts;
    const shown = job.error && !["cancelled", "completed"].includes(job.state) ? job.error : null;
    const stamp = shown ? `${shown.code}\n${shown.message}` : "";
    if (problem.dataset.shown === stamp) return;
    problem.dataset.shown = stamp;
    problem.replaceChildren(
      ...(shown
        ? [problemBox({
            title: job.state === "retrying" ? "The last attempt failed" : "Why it failed",
            message: shown.message || "No reason was given.",
            code: shown.code,
            requestId: job.requestId,
            traceId: job.traceId,
          })]
        : []),
    );
  }

  #showButtons() {
    const job = this.#job;
    const { buttons, details } = this.#parts;
    const focused = buttons.contains(document.activeElement);
    const wanted = [];
    const described = { "aria-describedby": `${this.#parts.id}-title` };
    if (FINISHED.has(job.state)) this.#asking = false;
    if (this.#asking) {
      wanted.push(
        button("Keep it", { class: "plain", ...described, onclick: () => this.#ask(false) }),
        button("Yes, cancel it", { class: "danger", ...described, onclick: (event) => this.#act(event, this.#actions.cancel) }),
      );
    } else if (!FINISHED.has(job.state)) {
      wanted.push(button("Cancel", { class: "plain", icon: "stop", ...described, onclick: () => this.#ask(true) }));
    }
    if (["failed", "cancelled"].includes(job.state) || (WITH_RESULT.has(job.state) && job.failedFiles > 0)) {
      const label = WITH_RESULT.has(job.state) ? `Retry ${plural(job.failedFiles, "missing file")}` : "Retry";
      wanted.push(button(label, { icon: "retry", ...described, onclick: (event) => this.#act(event, this.#actions.retry) }));
    }
    if (WITH_RESULT.has(job.state)) {
      const label = job.resultBytes ? `Download ${bytes(job.resultBytes)}` : "Download";
      wanted.push(button(label, { class: "primary", icon: "download", ...described, onclick: (event) => this.#act(event, this.#actions.download) }));
    }
    buttons.replaceChildren(...wanted);
    if (focused) (this.#asking ? buttons.lastElementChild : details).focus();
  }

  #ask(asking) {
    this.#asking = asking;
    this.#showButtons();
    if (!asking) this.#parts.buttons.firstElementChild?.focus();
  }

  async #act({ currentTarget }, action) {
    if (currentTarget.getAttribute("aria-disabled") === "true") return;
    setAttribute(currentTarget, "aria-disabled", "true");
    this.#parts.outcome.replaceChildren();
    try {
      await action(this.#job);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 401) this.#parts.outcome.replaceChildren(problemBox(error, { alert: true }));
      if (this.#asking) this.#ask(false);
    } finally {
      setAttribute(currentTarget, "aria-disabled", null);
    }
  }

  #showDetails() {
    const job = this.#job;
    const { panel } = this.#parts;
    const stamp = JSON.stringify([job.state, job.updatedAt && FINISHED.has(job.state), job.attempt, job.worker, job.startedAt, job.retryOf, job.retriedBy, job.expiresAt, job.failures, job.callback]);
    if (panel.dataset.shown !== stamp) {
      panel.dataset.shown = stamp;
      this.#timeline ??= h("div", { class: "timeline-box" }, h("p", { class: "quiet" }, "Reading the timeline…"));
      const focused = panel.contains(document.activeElement);
      panel.replaceChildren(facts(job), ...missingFiles(job), this.#timeline);
      if (focused) this.#parts.details.focus();
    }
    this.#loadTimeline();
    if (job.failedFiles > 0 && job.failures === undefined && !this.#completed) {
      this.#completed = true;
      this.#actions.complete(job);
    }
  }

  async #loadTimeline() {
    const stamp = `${this.#job.state} ${this.#job.attempt}`;
    const due = this.#loaded.stamp !== stamp || (!FINISHED.has(this.#job.state) && performance.now() - this.#loaded.at > LEAST_MS * 2);
    if (this.#loaded.busy || !due || performance.now() - this.#loaded.at < (this.#loaded.stamp === stamp ? LEAST_MS : 0)) return;
    this.#loaded = { stamp, at: performance.now(), busy: true };
    try {
      const timeline = await this.#actions.api.get(`v1/jobs/${encodeURIComponent(this.#job.jobId)}/timeline`);
      this.#drawTimeline(timeline);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#timeline.replaceChildren(problemBox(error));
    } finally {
      this.#loaded.busy = false;
      this.#loaded.at = performance.now();
    }
  }

  #drawTimeline(timeline) {
    const onAll = () => {
      this.#all = true;
      this.#drawTimeline(timeline);
      this.#timeline.querySelector("figure")?.setAttribute("tabindex", "-1");
      this.#timeline.querySelector("figure")?.focus();
    };
    const link = webUrl(timeline.traceUrl);
    this.#timeline.replaceChildren(
      timelineView({ ...timeline, items: Array.isArray(timeline.items) ? timeline.items : [] }, this.#actions.now(), { all: this.#all, onAll }),
      ...(link ? [h("a", { class: "trace-link", href: link, target: "_blank", rel: "noopener noreferrer" }, "Open the trace", icon("external"), h("span", { class: "sr-only" }, " in a new tab"))] : []),
    );
  }
}

const MOST_MISSING = 50;

function missingFiles({ failures }) {
  if (!Array.isArray(failures) || !failures.length) return [];
  const rows = failures.slice(0, MOST_MISSING).map(({ fileId, message, error }) =>
    h("li", {}, h("code", {}, String(fileId)), ` ${message ?? error ?? ""}`),
  );
  if (failures.length > MOST_MISSING) rows.push(h("li", { class: "quiet" }, `and ${plural(failures.length - MOST_MISSING, "more file")}: manifest.json in the result names all.`));
  return [h("div", { class: "missing" }, h("h4", {}, "Missing files"), h("ul", {}, rows))];
}

// Only where it leads to the web: a link must not run anything.
export function webUrl(value) {
  const url = typeof value === "string" && URL.canParse(value) ? new URL(value) : null;
  return url && ["https:", "http:"].includes(url.protocol) ? url.href : null;
}

function facts(job) {
  const time = (value) => value && h("time", { datetime: value, title: value }, moment(value));
  const rows = [
    ["Job", copyable(job.jobId, "job id")],
    ["Request", job.requestId && copyable(job.requestId, "request id")],
    ["Trace", job.traceId && copyable(job.traceId, "trace id")],
    ["Retry of", job.retryOf && copyable(job.retryOf, "id of the first job")],
    ["Retried by", job.retriedBy && copyable(job.retriedBy, "id of the retry")],
    ["Asked for", time(job.createdAt)],
    ["Started", time(job.startedAt)],
    ["Ended", time(job.finishedAt)],
    ["Result kept until", time(job.expiresAt)],
    ["Attempt", job.attempt > 0 && `${job.attempt} of ${job.maxAttempts}`],
    ["Worker", job.worker],
    ["Worker time", job.workerSeconds > 0 && duration(job.workerSeconds)],
    ["Same files as", job.deduplicated === true && "an earlier job, whose result this is"],
    ["Webhook", job.callback?.state && `${job.callback.state}${job.callback.attempts ? `, after ${plural(job.callback.attempts, "attempt")}` : ""}`],
  ].filter(([, value]) => value);
  return h("dl", { class: "facts" }, rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

