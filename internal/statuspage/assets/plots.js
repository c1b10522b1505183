// Draws the plots of the page of the history. Without this script the table of the page has the numbers.
"use strict";

const plotKinds = {
  documents: [["completed", "completed", "--green"], ["skipped", "skipped", "--grey"]],
  open: [["waiting", "waiting", "--grey"], ["training", "training", "--accent"], ["troubled", "troubled", "--red"]],
  lag: [["lag", "lag_seconds", "--accent", 60]],
  training: [["training time", "training_seconds", "--accent", 1]],
};
let plots = [];

const two = n => String(n).padStart(2, "0");
const day = d => `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())}`;
const time = d => `${two(d.getHours())}:${two(d.getMinutes())}`;

// The ticks of the time: the hour, and the day where it begins.
function ticks(_, seconds, _axis, _space, step) {
  let before = "";
  return seconds.map(s => {
    const d = new Date(s * 1000), today = day(d).slice(5), text = step >= 86400 ? today : today === before ? time(d) : `${time(d)}\n${today}`;
    before = today;
    return text;
  });
}

function plotInto(place, samples) {
  const style = getComputedStyle(document.documentElement), probe = document.createElement("i");
  document.body.append(probe);
  const color = name => { // the canvas takes no light-dark()
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const kind = plotKinds[place.dataset.plot], axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false }, font: "12px " + style.fontFamily };
  const value = (s, [, field, , unit]) => place.dataset.plot === "training" && s.trained === 0 ? null : s[field] / (unit ?? 1);
  const data = [samples.map(s => Date.parse(s.at) / 1000), ...kind.map(k => samples.map(s => value(s, k)))];
  const steps = uPlot.paths.stepped({ align: 1 });
  const series = kind.map(([label, , hue]) => ({
    label, stroke: color(hue), width: 2, spanGaps: true, paths: place.dataset.plot === "training" ? undefined : steps, points: { show: samples.length < 30 || place.dataset.plot === "training", size: 5 },
  }));
  probe.remove();
  return new uPlot({
    width: place.clientWidth, height: 180, cursor: { y: false }, series: [{ label: "time", value: (_, v) => v === null ? "" : `${day(new Date(v * 1000))} ${time(new Date(v * 1000))}` }, ...series],
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max(1, (high ?? 1) * 1.05)] } },
    axes: [{ ...axis, values: ticks }, { ...axis, size: 64, values: (_, ticks) => ticks.map(v => v.toLocaleString("en-US")) }],
  }, data, place);
}

async function drawPlots() {
  const box = document.querySelector(".plots");
  if (box === null) return;
  const answer = await fetch(location.origin + box.dataset.from, { cache: "no-store" });
  if (!answer.ok) return;
  const samples = (await answer.json()).samples;
  for (const p of plots) p.destroy();
  plots = [...box.querySelectorAll("[data-plot]")].map(place => plotInto(place, samples));
}

drawPlots();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawPlots);
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; drawPlots(); } });
