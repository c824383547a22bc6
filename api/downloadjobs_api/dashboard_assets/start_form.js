// The form that starts a job. It shows every fault at once, before and after the API has looked.

import { Problem, randomKey } from "./api.js";
import { announce, h, setAttribute, setText } from "./dom.js";
import { faultText, parseFileIds } from "./file_ids.js";
import { count, plural } from "./format.js";
import { problemBox } from "./problem_view.js";

const MOST_FAULTS = 12;

export class StartForm {
  #api;
  #limits;
  #onStarted;
  #form = document.getElementById("start");
  #ids = document.getElementById("file-ids");
  #summary = document.getElementById("file-ids-summary");
  #faults = document.getElementById("file-ids-faults");
  #callback = document.getElementById("callback-url");
  #callbackFault = document.getElementById("callback-url-fault");
  #outcome = document.getElementById("start-outcome");
  #submit = document.getElementById("start-submit");
  #asked = false; // once it was submitted, faults are shown as one types
  #sent = null; // the body that was sent last, and its key: the same body again is the same job

  constructor(api, config, onStarted) {
    this.#api = api;
    this.#limits = config.fileIds;
    this.#onStarted = onStarted;
    setText(document.getElementById("file-ids-hint"), `Numbers from ${count(config.fileIds.least)}, and ranges: up to ${count(config.fileIds.count)} files.`);
    document.getElementById("callback-field").hidden = !config.callbacks;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    this.#ids.addEventListener("input", () => this.#check());
    this.#callback.addEventListener("input", () => this.#asked && this.#checkCallback());
    this.#ids.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.#form.requestSubmit();
    });
  }

  #check() {
    const parsed = parseFileIds(this.#ids.value, this.#limits);
    const { ids, faults, duplicates } = parsed;
    const repeated = duplicates ? `, ${plural(duplicates, "repeated id")} left out` : "";
    setText(this.#summary, ids.length ? plural(ids.length, "file") + repeated : "");
    this.#show(this.#asked ? faults.map(faultText) : []);
    return parsed;
  }

  #show(messages) {
    const shown = messages.slice(0, MOST_FAULTS).map((message) => h("li", {}, message));
    if (messages.length > MOST_FAULTS) shown.push(h("li", {}, `And ${messages.length - MOST_FAULTS} more.`));
    this.#faults.replaceChildren(...shown);
    this.#faults.hidden = shown.length === 0;
    setAttribute(this.#ids, "aria-invalid", shown.length > 0 && "true");
  }

  #checkCallback() {
    const value = this.#callback.value.trim();
    let fault = "";
    if (value) {
      const url = URL.canParse(value) ? new URL(value) : null;
      if (url?.protocol !== "https:") fault = "Enter a whole URL that begins with https://, or nothing.";
    }
    setText(this.#callbackFault, fault);
    this.#callbackFault.hidden = !fault;
    setAttribute(this.#callback, "aria-invalid", fault && "true");
    return fault ? null : value;
  }

  async #start() {
    if (this.#submit.getAttribute("aria-disabled") === "true") return;
    this.#asked = true;
    this.#outcome.replaceChildren();
    const { ids, faults } = this.#check();
    const callback = this.#checkCallback();
    if (faults.length || callback === null) {
      (faults.length ? this.#ids : this.#callback).focus();
      announce(faults.length ? plural(faults.length, "fault") + " in the file ids." : this.#callbackFault.textContent);
      return;
    }
    const priority = this.#form.elements.priority.value;
    const body = { file_ids: ids, ...(priority ? { priority } : {}), ...(callback ? { callbackUrl: callback } : {}) };
    await this.#send(body);
  }

  async #send(body) {
    const text = JSON.stringify(body);
    if (this.#sent?.text !== text) this.#sent = { text, key: randomKey() };
    this.#busy(true);
    try {
      const started = await this.#api.json("POST", "v1/download/initiate", {
        body,
        headers: { "idempotency-key": this.#sent.key },
      });
      this.#sent = null;
      this.#asked = false;
      this.#ids.value = "";
      this.#check();
      this.#onStarted(started);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status !== 0) this.#sent = null; // only what had no answer is the same job when it is sent again
      if (error.status !== 401) this.#outcome.replaceChildren(problemBox(error, { alert: true }));
    } finally {
      this.#busy(false);
    }
  }

  // The button stays where the focus is: a disabled one would lose it.
  #busy(busy) {
    setAttribute(this.#submit, "aria-disabled", busy && "true");
    setText(this.#submit.querySelector("span"), busy ? "Starting…" : "Start download");
  }
}
