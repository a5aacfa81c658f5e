// Draws the charts of a page from JSON and keeps them up to date while what they show goes on.
// <div class="plot" data-source="/runs/ID/points" data-chart="norms" data-live="yes"> with an accessible table elsewhere.
"use strict";

(() => {
  const PERIOD_MS = 1000;
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const palette = () => [ink("--blue"), ink("--rust"), ink("--gold"), ink("--green"), ink("--soft")];

  const options = (element, chart) => {
    const colours = palette();
    const axis = { stroke: ink("--soft"), grid: { stroke: ink("--faint") }, ticks: { stroke: ink("--faint") } };
    return {
      width: element.clientWidth,
      height: 240,
      cursor: { drag: { x: false, y: false } },
      scales: { x: { time: false } },
      axes: [{ ...axis, label: chart.x }, { ...axis, label: chart.y, size: 64 }],
      series: [{ label: chart.x }].concat(
        chart.series.map((name, i) => ({ label: name, stroke: colours[i % colours.length], width: 2, spanGaps: false })),
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
    element.dataset.points = String(chart.at.length);
  };

  const follow = async (source, elements) => {
    let going = true;
    while (going) {
      try {
        const answer = await fetch(source, { headers: { "X-Cameo-Refresh": "1" } });
        if (!answer.ok) return;
        const found = await answer.json();
        for (const element of elements) draw(element, found.charts[element.dataset.chart]);
        going = found.live;
      } catch {
        // The process is being restarted: the next look finds it.
      }
      await new Promise((resume) => setTimeout(resume, PERIOD_MS));
    }
  };

  const start = () => {
    const sources = new Map();
    for (const element of document.querySelectorAll("[data-chart]")) {
      const list = sources.get(element.dataset.source) || [];
      sources.set(element.dataset.source, [...list, element]);
    }
    for (const [source, elements] of sources) follow(source, elements);
    addEventListener("resize", () => {
      for (const element of document.querySelectorAll("[data-chart]")) {
        if (element.plot) element.plot.setSize({ width: element.clientWidth, height: 240 });
      }
    });
  };

  document.addEventListener("DOMContentLoaded", start);
})();
