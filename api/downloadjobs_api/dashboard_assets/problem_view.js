// An error as the page shows it, with the ids that its operator asks for.

import { copyable, h, icon } from "./dom.js";

// `problem` is a Problem, or a job's error with ids beside it. With `alert` screen readers tell it at once.
export function problemBox({ title, message, code, errors = [], requestId, traceId, retryAfter }, { alert = false } = {}) {
  return h(
    "div",
    { class: "problem", role: alert ? "alert" : null },
    icon("alert"),
    h(
      "div",
      { class: "problem-text" },
      h("p", { class: "problem-title" }, title || code || "Something went wrong"),
      h("p", {}, message),
      errors.length > 0 &&
        h("ul", {}, errors.map((error) => h("li", {}, h("code", {}, String(error.field)), ` ${String(error.message)}`))),
      retryAfter ? h("p", { class: "quiet" }, `Try again in ${retryAfter} s.`) : null,
      idList({ code: title ? code : "", requestId, traceId }),
    ),
  );
}

export function idList({ code, requestId, traceId }) {
  const rows = [
    code && ["Code", h("code", {}, code)],
    requestId && ["Request", copyable(requestId, "request id")],
    traceId && ["Trace", copyable(traceId, "trace id")],
  ].filter(Boolean);
  return rows.length > 0 && h("dl", { class: "ids" }, rows.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}
