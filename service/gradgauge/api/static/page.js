// Live progress: every element with data-events follows its analysis over Server-Sent Events.
"use strict";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);
const MOST_STREAMS = 4; // a browser opens six connections to one server

// On an analysis's own page its state stands in the bar above, outside of the element.
function show(element, event) {
  const place = element.hasAttribute("data-page") ? document : element;
  const bar = place.querySelector("[data-progress]");
  const stage = place.querySelector("[data-stage]");
  const state = place.querySelector("[data-state]");
  const percent = place.querySelector("[data-percent]");
  if (bar) bar.value = event.progress;
  if (percent) percent.textContent = `${Math.floor(100 * event.progress)}%`;
  if (stage) stage.textContent = event.stage ?? event.state;
  for (const step of element.querySelectorAll("[data-step]")) {
    if (step.dataset.step === event.stage) step.setAttribute("aria-current", "step");
    else step.removeAttribute("aria-current");
  }
  if (state) {
    state.textContent = event.state;
    state.className = `badge is-${event.state}`;
  }
}

function follow(place) {
  const source = new EventSource(place.dataset.events);
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    show(place, event);
    if (FINAL.has(event.state)) {
      source.close();
      location.reload();
    }
  };
}

for (const place of [...document.querySelectorAll("[data-events]")].slice(0, MOST_STREAMS)) {
  follow(place);
}
