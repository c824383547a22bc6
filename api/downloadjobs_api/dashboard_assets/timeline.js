// What a job did when, as rows of a chart. Pure.

const MOST_ROWS = 14;
const NAMES = {
  queued: "Queued",
  retrying: "Waits to retry",
  suspended: "Held",
  attempt: "Leased",
  leased: "Leased",
  planning: "Planning",
  file: "File",
  upload: "Upload",
  finish: "Finish",
  expired: "Expired",
};
const MOMENTS = new Set(["finish", "expired"]); // which take no time
const BAD = new Set(["error", "failed", "lost", "dead"]);

// {rows, spanMs, hidden}: rows as {kind, label, offset, width, seconds, failed, open}, with offset and width from 0 to 1.
// Of many files only the slowest and those that failed are shown, unless `all` are wanted.
export function layOut(items, nowMs, all = false) {
  const known = items
    .map((item) => {
      const from = Date.parse(item.at);
      const to = item.endAt ? Date.parse(item.endAt) : null;
      return { item, from, to: to ?? (endless(item) ? from : Math.max(from, nowMs)), open: to === null && !endless(item) };
    })
    .filter(({ from, to }) => !Number.isNaN(from) && !Number.isNaN(to));
  if (!known.length) return { rows: [], spanMs: 0, hidden: 0 };
  const start = Math.min(...known.map(({ from }) => from));
  const span = Math.max(1, Math.max(...known.map(({ to }) => to)) - start);
  const shown = all ? known : fewer(known);
  return {
    rows: shown.map(({ item, from, to, open }) => ({
      kind: kindOf(item.name),
      label: labelOf(item, known),
      offset: (from - start) / span,
      width: Math.max(0, to - from) / span,
      at: item.at,
      seconds: Math.max(0, to - from) / 1000,
      failed: isFailed(item),
      note: noteOf(item),
      open,
    })),
    spanMs: span,
    hidden: known.length - shown.length,
  };
}

// A moment, not a span of time.
const endless = (item) => MOMENTS.has(kindOf(item.name));

export function kindOf(name) {
  if (name === "attempt") return "leased";
  return Object.hasOwn(NAMES, name) ? name : "other";
}

function labelOf(item, known) {
  const kind = kindOf(item.name);
  const id = item.attributes?.fileId ?? item.attributes?.file_id;
  const base = kind === "file" && id !== undefined ? `File ${id}` : (NAMES[kind] ?? String(item.name));
  const several = known.some(({ item: other }) => (other.attempt ?? 1) > 1);
  return several && kind === "leased" && item.attempt ? `${base}, attempt ${item.attempt}` : base;
}

const isFailed = (item) => BAD.has(item.status);

function noteOf(item) {
  const message = item.attributes?.message ?? item.attributes?.error ?? item.attributes?.errorCode;
  return isFailed(item) ? String(message ?? "") : "";
}

function fewer(known) {
  const files = known.filter(({ item }) => kindOf(item.name) === "file");
  const room = Math.max(3, MOST_ROWS - (known.length - files.length));
  if (files.length <= room) return known;
  const weight = ({ item, from, to }) => (isFailed(item) ? 1e12 : 0) + (to - from);
  const kept = new Set([...files].sort((a, b) => weight(b) - weight(a)).slice(0, room));
  return known.filter((entry) => kindOf(entry.item.name) !== "file" || kept.has(entry));
}
