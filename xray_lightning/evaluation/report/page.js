"use strict";

// Theme: the system's, unless chosen here; the choice is remembered where storage is allowed.
(function () {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const show = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  try {
    const kept = localStorage.getItem("xray-report-theme");
    if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  } catch (error) { /* no storage for files here */ }
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("xray-report-theme", root.dataset.theme); } catch (error) { /* as above */ }
    show();
  });
  system.addEventListener("change", show);
  button.hidden = false;
  show();
})();

// Tables: a column's button sorts by it, again the other way. Rows of no run stay below the last run of their group.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const derived = (row) => row.matches(".reference, .mean");
  const compare = (column, sign) => (first, second) => {
    const a = first.cells[column].dataset.key, b = second.cells[column].dataset.key;
    if (a === undefined || b === undefined) return (a === undefined) - (b === undefined);
    return sign * (heads[column].classList.contains("num") ? a - b : a.localeCompare(b, "en", { numeric: true }));
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const ascending = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const runs = rows.filter((row) => !derived(row)).sort(compare(column, ascending ? 1 : -1));
    runs.forEach((run, i) => {
      body.append(run);
      const group = run.dataset.group;
      if (group && !runs.slice(i + 1).some((later) => later.dataset.group === group)) {
        body.append(...rows.filter((row) => derived(row) && row.dataset.group === group));
      }
    });
  }));
}

// Figures: a larger view.
(function () {
  const dialog = document.getElementById("enlarged");
  const large = dialog.appendChild(new Image());
  const enlarge = (image) => {
    large.src = image.src;
    large.alt = image.alt;
    large.classList.toggle("tall", image.closest(".gallery") !== null);
    dialog.showModal();
    dialog.scrollTo(0, 0);
  };
  for (const button of document.querySelectorAll(".enlarge")) {
    const image = button.closest("figure").querySelector("img");
    button.hidden = false;
    button.addEventListener("click", () => enlarge(image));
    image.style.cursor = "zoom-in";
    image.addEventListener("click", () => enlarge(image));
  }
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();

// A run's section opens when something links to it, and all of them for paper.
(function () {
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
  };
  window.addEventListener("hashchange", open);
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details.run").forEach((run) => { run.open = true; });
  });
  open();
})();
