// Numbers and times as people read them. Pure.

const whole = new Intl.NumberFormat("en");
const UNITS = ["bytes", "kB", "MB", "GB", "TB", "PB"];

export const count = (value) => whole.format(value);

export const plural = (value, one, many = `${one}s`) => `${whole.format(value)} ${value === 1 ? one : many}`;

// By powers of 1000, with three digits or so.
export function bytes(value) {
  let unit = 0;
  let scaled = value;
  while (unit < UNITS.length - 1 && scaled >= 999.5) {
    scaled /= 1000;
    unit += 1;
  }
  const digits = unit === 0 || scaled >= 99.95 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${UNITS[unit]}`;
}

export function duration(seconds) {
  if (seconds < 0.0995) return `${Math.max(0, Math.round(seconds * 1000))} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (seconds < 600) {
    const rest = Math.round(seconds) % 60;
    return `${Math.floor(Math.round(seconds) / 60)} min${rest ? ` ${rest} s` : ""}`;
  }
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h${minutes % 60 ? ` ${minutes % 60} min` : ""}`;
  return `${Math.round(minutes / 1440)} days`;
}

// An estimate: no digits that it cannot promise.
export function roughly(seconds) {
  if (seconds < 1.5) return "a second";
  if (seconds < 10) return `${Math.round(seconds)} s`;
  if (seconds < 57.5) return `${Math.round(seconds / 5) * 5} s`;
  if (seconds < 3570) return `${Math.max(1, Math.round(seconds / 60))} min`;
  return duration(Math.round(seconds / 300) * 300);
}

export function ago(seconds) {
  if (seconds < 3) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return plural(Math.floor(seconds / 86400), "day") + " ago";
}

export function ordinal(value) {
  const tens = value % 100;
  const ending = tens > 10 && tens < 14 ? "th" : (["th", "st", "nd", "rd"][value % 10] ?? "th");
  return `${whole.format(value)}${ending}`;
}

// In the reader's own zone and manner; the exact moment stands in the element's `datetime`.
export function moment(iso, locale) {
  const date = new Date(iso);
  return Number.isNaN(date.getTime()) ? iso : new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(date);
}

// Of an id, what tells it from others at a glance.
export const short = (id) => (id.length > 13 ? `${id.slice(0, 8)}…` : id);
