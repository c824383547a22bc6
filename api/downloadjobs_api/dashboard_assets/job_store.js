// The jobs that the page knows: what lists, details and events said of them. Pure.

export const FINISHED = new Set(["completed", "completed_with_errors", "failed", "cancelled", "expired"]);
export const WITH_RESULT = new Set(["completed", "completed_with_errors"]);

export const FILTERS = {
  all: [],
  active: ["queued", "processing", "retrying"],
  done: ["completed", "completed_with_errors"],
  ended: ["failed", "cancelled", "expired"],
};

const NEWEST_WEIGHT = 0.3; // of the newest value in a running mean of bytes a second

export class JobStore {
  #jobs = new Map();

  get size() {
    return this.#jobs.size;
  }

  get(id) {
    return this.#jobs.get(id);
  }

  clear() {
    this.#jobs.clear();
  }

  values() {
    return this.#jobs.values();
  }

  // Takes a whole detail. One that is older than what is known changes nothing: answers may overtake events.
  merge(detail) {
    const known = this.#jobs.get(detail.jobId);
    if (known && isOlder(detail, known)) return false;
    // A list leaves out what a detail has: the files, and which of them failed.
    this.#jobs.set(detail.jobId, { ...known, ...detail, speed: speedOf(known, detail) });
    return true;
  }

  // Takes an event. False if the whole job has to be asked for: it is unknown, or the event tells of an end.
  apply(kind, data) {
    const known = this.#jobs.get(data.jobId);
    if (!known) return false;
    if (isOlder(data, known)) return true;
    const changed = { ...known, state: data.state ?? known.state, updatedAt: data.updatedAt ?? known.updatedAt };
    for (const name of ["attempt", "worker", "retryAt"]) if (data[name] !== undefined) changed[name] = data[name];
    if (data.progress) changed.progress = { ...known.progress, ...data.progress };
    if (changed.state !== "queued" && changed.state !== "retrying") changed.queue = null;
    if (kind === "progress") changed.etaSeconds = data.etaSeconds ?? null; // that of before is over
    changed.speed = kind === "progress" ? speedOf(known, changed) : FINISHED.has(changed.state) ? null : changed.speed;
    this.#jobs.set(data.jobId, changed);
    return kind === "progress";
  }

  // Newest first. Older ones than the last page that was loaded are left out, so that no page has gaps.
  list(filter, horizon = "") {
    const states = FILTERS[filter];
    return [...this.#jobs.values()]
      .filter((job) => (!states.length || states.includes(job.state)) && (job.createdAt ?? "") >= horizon)
      .sort((a, b) => order(b.createdAt, a.createdAt) || order(a.jobId, b.jobId));
  }
}

const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function isOlder(update, known) {
  const before = Date.parse(update.updatedAt) < Date.parse(known.updatedAt);
  // An end is an end: only a dead letter comes back to the queue, with a later time.
  return before || (update.updatedAt === known.updatedAt && FINISHED.has(known.state) && !FINISHED.has(update.state));
}

// Bytes a second, as a running mean that forgets an earlier attempt.
function speedOf(known, job) {
  if (job.state !== "processing") return null;
  if (!known?.progress || known.state !== "processing") return known?.speed ?? null;
  const seconds = (Date.parse(job.updatedAt) - Date.parse(known.updatedAt)) / 1000;
  const more = (job.progress?.bytes ?? 0) - (known.progress.bytes ?? 0);
  if (more < 0) return null;
  if (!(seconds > 0)) return known.speed ?? null;
  const now = more / seconds;
  return known.speed == null ? now : known.speed + (now - known.speed) * NEWEST_WEIGHT;
}

// How far a job is, from 0 to 1, by bytes once they are known; null before that and without files.
export function fraction(job) {
  const { bytes = 0, bytesTotal = 0, processed = 0, total = 0 } = job.progress ?? {};
  if (bytesTotal > 0) return Math.min(1, bytes / bytesTotal);
  return total > 0 && processed > 0 ? Math.min(1, processed / total) : null;
}

// Seconds until a running job has ended: as it goes now, or else by the API's own estimate; null without either.
export function secondsLeft(job, nowMs) {
  if (job.state !== "processing") return null;
  const left = (job.progress?.bytesTotal ?? 0) - (job.progress?.bytes ?? 0);
  if (job.speed > 0 && left > 0) return left / job.speed;
  if (typeof job.etaSeconds !== "number") return null;
  return Math.max(0, job.etaSeconds - (nowMs - Date.parse(job.updatedAt)) / 1000);
}
