// What the page says of a job. Pure.

import { bytes, count, duration, ordinal, plural, roughly } from "./format.js";
import { fraction, secondsLeft } from "./job_store.js";

const STATES = {
  queued: ["Queued", "clock", "waiting"],
  processing: ["Processing", "play", "running"],
  retrying: ["Retrying", "retry", "warning"],
  completed: ["Completed", "check", "good"],
  completed_with_errors: ["Completed with errors", "alert", "warning"],
  failed: ["Failed", "cross", "bad"],
  cancelled: ["Cancelled", "stop", "quiet"],
  expired: ["Expired", "hourglass", "quiet"],
};

// {label, icon, tone}
export function stateOf(job) {
  const [label, icon, tone] = STATES[job.state] ?? [job.state, "clock", "waiting"];
  return { label: job.suspended && job.state === "queued" ? "Suspended" : label, icon, tone };
}

export function title(job) {
  const files = plural(job.totalFileIds ?? job.progress?.total ?? 0, "file");
  const size = job.resultBytes || job.progress?.bytesTotal;
  return size ? `${files} · ${bytes(size)}` : files;
}

// The line below the bar, in its parts.
export function progressParts(job, nowMs) {
  const { processed = 0, total = 0, bytes: done = 0, bytesTotal = 0 } = job.progress ?? {};
  switch (job.state) {
    case "queued":
      return waitingParts(job);
    case "retrying":
      return [...untilRetry(job, nowMs), `attempt ${job.attempt} of ${job.maxAttempts} failed`];
    case "processing": {
      const left = secondsLeft(job, nowMs);
      return [
        `${count(processed)} of ${plural(total, "file")}`,
        bytesTotal > 0 && `${bytes(done)} of ${bytes(bytesTotal)}`,
        job.speed > 0 && `${bytes(job.speed)}/s`,
        left !== null && `about ${roughly(left)} left`,
        job.attempt > 1 && `attempt ${job.attempt} of ${job.maxAttempts}`,
      ].filter(Boolean);
    }
    case "completed":
    case "completed_with_errors": {
      const took = (Date.parse(job.finishedAt) - Date.parse(job.startedAt ?? job.createdAt)) / 1000;
      const left = (Date.parse(job.expiresAt) - nowMs) / 1000;
      return [
        job.failedFiles > 0 && `${plural(job.failedFiles, "file")} missing`,
        took >= 0 && `took ${duration(took)}`,
        left > 0 && `kept for ${duration(left)}`,
      ].filter(Boolean);
    }
    case "expired":
      return ["The result was removed."];
    case "cancelled":
      return [job.error?.message || "Cancelled."];
    default:
      return [];
  }
}

function waitingParts(job) {
  if (job.suspended) return ["Held, until it is resumed."];
  const queue = job.queue;
  switch (queue?.place) {
    case "ready":
      return [
        queue.ahead === 0 ? "Next in the queue" : `${ordinal(queue.ahead + 1)} in the queue`,
        typeof queue.startsInSeconds === "number" &&
          (queue.startsInSeconds < 1 ? "starts as soon as a worker is free" : `starts in about ${roughly(queue.startsInSeconds)}`),
      ].filter(Boolean);
    case "parked":
      return ["Waits for your other jobs: as many as allowed are running."];
    case "joined":
      return ["Waits for the same result, which another job makes."];
    case "delayed":
      return ["Waits for its next attempt."];
    default:
      return ["Waiting for its place in the queue."];
  }
}

function untilRetry(job, nowMs) {
  const seconds = (Date.parse(job.retryAt) - nowMs) / 1000;
  if (Number.isNaN(seconds)) return ["Waits for its next attempt"];
  return [seconds > 1 ? `Tries again in ${roughly(seconds)}` : "Tries again now"];
}

// What a bar says: {value, text}, with a null value while nothing can be told.
export function bar(job) {
  const done = fraction(job);
  if (done === null) return { value: null, text: "not begun" };
  return { value: done, text: `${Math.floor(done * 100)} %` };
}

// What a screen reader is told when a job changes, or nothing: progress is not told.
export function announcement(before, job) {
  if (!before || before.state === job.state) return "";
  const name = `Job ${job.jobId.slice(0, 8)}`;
  switch (job.state) {
    case "processing":
      return `${name} has started.`;
    case "retrying":
      return `${name} failed, and will be tried again.`;
    case "completed":
      return `${name} is completed. The result is ready.`;
    case "completed_with_errors":
      return `${name} is completed, without some of its files.`;
    case "failed":
      return `${name} has failed.`;
    case "cancelled":
      return `${name} is cancelled.`;
    case "expired":
      return `The result of ${name} has expired.`;
    default:
      return "";
  }
}
