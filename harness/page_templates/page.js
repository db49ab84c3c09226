"use strict";
(() => {
  const root = document.documentElement;
  const NARROW = matchMedia("(max-width: 40rem)");
  const MOST_NUMBERS = 500;

  // ---------------------------------------------------------------- tables: sort, filter, another baseline
  const POWERS = { "": 1, n: 1e-9, "µ": 1e-6, m: 1e-3, k: 1e3, K: 1e3, M: 1e6, G: 1e9, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 };
  const NUMBER = /^(?:≤ |±|at least |ok )?([+-]?[\d,]*\.?\d+)\s?(Ki|Mi|Gi|[nµmkKMG])?(?=$|[\s(×÷%/,;]|s\b|B|FLOP|J|b)/;

  function sortValue(cell) {
    if (cell.dataset.sort !== undefined) {
      const given = Number(cell.dataset.sort);
      return cell.dataset.sort === "" ? null : Number.isNaN(given) ? cell.dataset.sort : given;
    }
    const text = cell.textContent.trim();
    if (text === "–" || text === "") return null;
    const found = NUMBER.exec(text);
    return found ? Number(found[1].replaceAll(",", "")) * POWERS[found[2] ?? ""] : text;
  }

  function compare(a, b) {
    if (typeof a === "number" && typeof b === "number") return a - b;
    if (typeof a === "number") return -1;
    if (typeof b === "number") return 1;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const descending = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        const body = table.tBodies[0];
        const keyed = [...body.rows].map((row, at) => [sortValue(row.cells[place]), at, row]);
        keyed.sort(([a, i], [b, j]) => {
          if (a === null || b === null) return (a === null) - (b === null) || i - j;  // what is not there stays below
          return (descending ? compare(b, a) : compare(a, b)) || i - j;
        });
        body.append(...keyed.map(([, , row]) => row));
      });
    });
  }

  function makeFilter(grid) {
    const rows = [...grid.querySelectorAll("tbody tr")];
    const count = grid.querySelector(".count");
    const filter = grid.querySelector(".filter");
    const show = () => {
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
    };
    filter.addEventListener("input", show);
    show();
  }

  function makeBaselines(grid) {
    const data = grid.querySelector(".others");
    if (!data) return;
    const others = JSON.parse(data.textContent);
    const selects = [...grid.querySelectorAll("select.baseline")];
    for (const select of selects) {
      const own = select.value;
      select.addEventListener("change", () => {
        const chosen = others[select.value] ?? {};
        for (const row of grid.querySelectorAll("tbody tr")) {
          for (const cell of row.querySelectorAll("[data-column]")) {
            const change = chosen[row.dataset.name]?.[cell.dataset.column];
            if (!change) continue;
            if (change.text !== undefined) cell.textContent = change.text;
            if (change.sort !== undefined) cell.dataset.sort = change.sort ?? "";
            cell.className = change.tone;
          }
        }
        select.dataset.changed = select.value === own ? "" : "yes";
        grid.querySelector(".warning").hidden = !selects.some((any) => any.dataset.changed);
      });
    }
  }

  for (const cell of document.querySelectorAll("main td")) if (cell.textContent.length > 60) cell.classList.add("long");
  document.querySelectorAll("main table").forEach(makeSortable);
  document.querySelectorAll(".grid").forEach((grid) => { makeFilter(grid); makeBaselines(grid); });

  // ---------------------------------------------------------------- commands
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.previousElementSibling;
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {  // a page that was opened from a file may not be allowed to
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }

  // ---------------------------------------------------------------- a link into what is folded opens it
  const open = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) target.open = true;
  };
  addEventListener("hashchange", open);
  open();

  // ---------------------------------------------------------------- charts, in the page's colours
  const pictures = [...document.querySelectorAll(".picture")].map((figure) => ({
    place: figure.querySelector(".chart"),
    spec: JSON.parse(figure.querySelector(".spec").textContent),
    numbers: figure.querySelector(".numbers"),
    view: null,
  }));

  function listNumbers({ spec, numbers }) {
    if (numbers.querySelector("table")) return;
    const values = spec.data.values.slice(0, MOST_NUMBERS);
    const names = Object.keys(values[0]);
    const table = document.createElement("table");
    const line = (parent, tag, texts) => {
      const row = parent.insertRow();
      for (const text of texts) row.appendChild(document.createElement(tag)).textContent = text ?? "–";
    };
    line(table.createTHead(), "th", names);
    const body = table.createTBody();
    for (const value of values) line(body, "td", names.map((name) => value[name]));
    numbers.querySelector(".scroll").append(table);
    const left = spec.data.values.length - values.length;
    if (left > 0) numbers.append(`and ${left} more`);
    makeSortable(table);
  }
  for (const picture of pictures) picture.numbers.addEventListener("toggle", () => listNumbers(picture));

  function draw() {
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    const narrow = NARROW.matches;
    const words = { labelColor: colour("--text"), titleColor: colour("--quiet"), labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal" };
    const config = {
      background: null, font: "system-ui, sans-serif", view: { stroke: null },
      axis: { ...words, labelOverlap: "greedy", labelSeparation: 6, gridColor: colour("--line"), gridOpacity: 0.6, domainColor: colour("--line"), tickColor: colour("--line") },
      legend: { ...words, columns: narrow ? 1 : 4, layout: { bottom: { direction: narrow ? "vertical" : "horizontal" } } }, text: { color: colour("--text") },
    };
    return Promise.all(pictures.map(async (picture) => {
      const { place, spec, view } = picture;
      if (view) {  // what was chosen stays chosen
        for (const chosen of spec.params ?? []) chosen.value = view.signal(chosen.name);
        view.finalize();
      }
      try {
        picture.view = (await vegaEmbed(place, structuredClone(spec), { renderer: "svg", actions: false, config })).view;
      } catch (error) {
        place.textContent = `This chart cannot be drawn: ${error.message}`;
        throw error;
      }
    }));
  }

  // ---------------------------------------------------------------- theme
  const themes = ["as the system", "light", "dark"];
  const button = document.getElementById("theme");
  let theme = 0;
  const redraw = () => { if (pictures.length) root.dataset.drawn = "no", draw().then(() => { root.dataset.drawn = "yes"; }); };
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    button.textContent = `Theme: ${themes[theme]}`;
    if (theme) root.dataset.theme = themes[theme]; else delete root.dataset.theme;
    redraw();
  });
  for (const change of [matchMedia("(prefers-color-scheme: dark)"), NARROW]) change.addEventListener("change", redraw);
  redraw();
})();
