// Draws the charts of a page from JSON and keeps them up to date while what they show goes on.
// <figure><div class="plot" data-source="/runs/ID/points" data-chart="norms"></div> … <table data-numbers></table></figure>
// The table gets the same numbers, for who does not see the drawing.
"use strict";

(() => {
  const PERIOD_MS = 1000, HEIGHT = 240;
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => [ink("--blue"), ink("--rust"), ink("--gold"), ink("--green"), ink("--soft")];
  // Groups of three, parted by a narrow space, as everywhere on these pages.
  const text = (value, digits) => value === null ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replaceAll(",", "\u202f");

  // Of a logarithmic scale: 1, 2 and 5 of each decade, or the decades alone where there are many.
  const splits = (_plot, _axis, low, high) => {
    const found = [], wide = high / low > 1000;
    for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) found.push(...(wide ? [1] : [1, 2, 5]).map((one) => one * power));
    return found.filter((one) => one >= low && one <= high);
  };

  const options = (element, chart) => {
    const colours = palette();
    const axis = { stroke: ink("--soft"), grid: { stroke: ink("--faint") }, ticks: { stroke: ink("--faint") } };
    const marks = (_, places) => places.map((value) => value === null ? "" : value.toLocaleString("en").replaceAll(",", "\u202f"));
    return {
      width: element.clientWidth,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      legend: { live: false },
      scales: { x: { time: false }, y: chart.log ? { distr: 3, range: (_, low, high) => low > 0 ? [low / 1.3, high * 1.3] : [1, 10] } : { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] } },
      axes: [{ ...axis, label: chart.x, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500] }, { ...axis, label: chart.y, size: 64, values: marks, ...(chart.log ? { splits, filter: (_, all) => all } : {}) }],
      series: [{ label: chart.x }].concat(
        chart.series.map((name, i) => ({ label: name, stroke: colours[i % colours.length], width: 2, spanGaps: false, dash: i ? [8, 3 * i] : undefined })),
      ),
    };
  };

  const draw = (element, chart) => {
    const data = [chart.at, ...chart.values];
    if (!element.plot || element.plot.series.length !== data.length) {
      if (element.plot) element.plot.destroy();
      element.plot = new uPlot(options(element, chart), data, element);
    } else {
      element.plot.setData(data);
    }
    element.chart = chart;
    element.dataset.points = String(chart.at.length);
  };

  const cell = (kind, words) => {
    const made = document.createElement(kind);
    if (kind === "th") made.scope = "col";
    made.className = "number";
    made.textContent = words;
    return made;
  };

  const row = (kind, words) => {
    const made = document.createElement("tr");
    made.append(...words.map((word) => cell(kind, word)));
    return made;
  };

  const tell = (table, chart) => {
    if (!table || table.tBodies[0].rows.length === chart.at.length) return;
    table.tHead.replaceChildren(row("th", [chart.x, ...chart.series]));
    table.tBodies[0].replaceChildren(
      ...chart.at.map((at, i) => row("td", [String(at), ...chart.values.map((list) => text(list[i], chart.digits))])),
    );
  };

  const show = (element, chart) => {
    draw(element, chart);
    tell(element.closest("figure")?.querySelector("table[data-numbers]"), chart);
  };

  const follow = async (source, elements) => {
    let going = true;
    while (going) {
      try {
        const answer = await fetch(source, { headers: { "X-Cameo-Refresh": "1" } });
        if (!answer.ok) return;
        const found = await answer.json();
        for (const element of elements) show(element, found.charts[element.dataset.chart]);
        going = found.live;
      } catch {
        // The process is being restarted: the next look finds it.
      }
      await new Promise((resume) => setTimeout(resume, PERIOD_MS));
    }
  };

  const again = (element) => {
    element.plot?.destroy();
    element.plot = undefined;
    if (element.chart) draw(element, element.chart);
  };

  const start = () => {
    const all = [...document.querySelectorAll("[data-chart]")];
    const sources = new Map();
    for (const element of all) sources.set(element.dataset.source, [...(sources.get(element.dataset.source) || []), element]);
    for (const [source, elements] of sources) follow(source, elements);
    addEventListener("resize", () => {
      for (const element of all) element.plot?.setSize({ width: element.clientWidth, height: HEIGHT });
    });
    // A canvas keeps the colours in which it was drawn: by day, by night, on paper.
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all.forEach(again));
    matchMedia("print").addEventListener("change", () => all.forEach(again));
  };

  document.addEventListener("DOMContentLoaded", start);
})();
