// Light or dark, before anything is painted: so this is no module, which would come later.
"use strict";

(() => {
  const KEY = "downloadjobs.theme";
  const THEMES = ["system", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      const theme = localStorage.getItem(KEY);
      return THEMES.includes(theme) ? theme : "system";
    } catch {
      return "system";
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    for (const choice of document.querySelectorAll("input[name=theme]")) choice.checked = choice.value === theme;
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => apply(stored()));
  document.addEventListener("change", ({ target }) => {
    if (target.name !== "theme") return;
    apply(target.value);
    try {
      localStorage.setItem(KEY, target.value);
    } catch {
      // It holds for this visit then.
    }
  });
})();
