// The chart of a job's trace: a list, whose text says what the bars show.

import { h, svg } from "./dom.js";
import { duration, plural } from "./format.js";
import { layOut } from "./timeline.js";

const WIDTH = 1000;
const HEIGHT = 10;
const LEAST = 6; // so that what took no time can still be seen

// `onAll` is called when every file is wanted.
export function timelineView(timeline, nowMs, { all, onAll }) {
  const { rows, spanMs, hidden } = layOut(timeline.items, nowMs, all);
  if (!rows.length) return h("p", { class: "quiet" }, "Nothing has been recorded yet.");
  const total = duration(spanMs / 1000);
  return h(
    "figure",
    { class: "timeline" },
    h("figcaption", {}, "Timeline ", h("span", { class: "quiet" }, `${total} in all`)),
    h("ol", {}, rows.map(row)),
    h("div", { class: "timeline-axis", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, total)),
    timeline.omitted > 0 && h("p", { class: "quiet" }, `${plural(timeline.omitted, "older step")} are not kept.`),
    hidden > 0 &&
      h("button", { type: "button", class: "link", onclick: onAll }, `Show ${plural(hidden, "more file")}, which were faster`),
  );
}

function row({ kind, label, offset, width, seconds, failed, note, open }) {
  const state = failed ? "failed" : open ? "open" : "done";
  const length = Math.max(LEAST, width * WIDTH);
  const x = Math.min(offset * WIDTH, WIDTH - length);
  const took = kind === "finish" || kind === "expired" ? "" : open ? `${duration(seconds)} so far` : duration(seconds);
  return h(
    "li",
    { class: `timeline-row ${kind} ${state}` },
    h("span", { class: "timeline-label" }, label, failed && h("span", { class: "timeline-note" }, note ? ` failed: ${note}` : " failed")),
    svg(
      "svg",
      { class: "timeline-bar", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
      svg("rect", { class: "track", x: 0, y: 4, width: WIDTH, height: 2 }),
      svg("rect", { class: "span", x, y: kind === "leased" ? 3 : 0, width: length, height: kind === "leased" ? 4 : HEIGHT }),
    ),
    h("span", { class: "timeline-time" }, took),
  );
}
