// One participant's way through the study: ask where they are, show three videos, keep the answer, go on.

"use strict";

const base = location.pathname.replace(/\/$/, "");
const at = (id) => document.getElementById(id);
const buttons = [...at("videos").querySelectorAll("button")];
const videos = buttons.map((button) => button.querySelector("video"));
let state; // {questions, answered}: the server's; the next question has the number `answered`
let seen = null; // when the videos of this question were first all seen; null: no answer is taken

async function ask(path, options) {
  // Until the server answers: what was chosen is never lost because a connection was.
  for (let pause = 500; ; pause = Math.min(2 * pause, 8000)) {
    try {
      const reply = await fetch(base + path, options);
      if (reply.ok || reply.status === 409) {
        complain("");
        return await reply.json();
      }
      if (reply.status < 500) throw new Refused((await reply.json()).error);
    } catch (error) {
      if (error instanceof Refused) {
        complain(error.message);
        throw error;
      }
    }
    complain("No connection. Trying again\u2026 please leave this page open.");
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

class Refused extends Error {}

function complain(text) {
  at("trouble").textContent = text;
  at("trouble").hidden = !text;
  at("hint").hidden = Boolean(text);
}

function show(id) {
  for (const part of ["welcome", "question", "end"]) at(part).hidden = part !== id;
}

function loaded(video, source) {
  return new Promise((resolve, reject) => {
    video.oncanplaythrough = resolve;
    video.onerror = () => reject(new Error("A video could not be shown. Please load this page again."));
    video.src = source;
    video.load();
  });
}

async function next() {
  seen = null;
  if (state.answered >= state.questions) {
    if (document.fullscreenElement) await document.exitFullscreen();
    show("end");
    return;
  }
  show("question");
  at("videos").classList.add("waiting");
  for (const button of buttons) button.classList.remove("chosen");
  document.activeElement?.blur();
  at("place").textContent = `${state.answered + 1} of ${state.questions}`;
  at("progress").value = state.answered / state.questions;
  const number = state.answered;
  try {
    await Promise.all(videos.map((video, index) => loaded(video, `${base}/videos/${number}/${index + 1}`)));
  } catch (error) {
    complain(error.message);
    return;
  }
  await play();
}

async function play() {
  try {
    await Promise.all(videos.map((video) => video.play()));
  } catch {
    at("play").hidden = false; // some phones, to save power, want to be asked
    return;
  }
  at("play").hidden = true;
  at("videos").classList.remove("waiting");
  seen = performance.now();
}

async function choose(index) {
  if (seen === null) return;
  const milliseconds = Math.round(performance.now() - seen);
  if (milliseconds < 250) return; // a key still held from the last question
  seen = null;
  buttons[index].classList.add("chosen");
  const answer = { question: state.answered, choice: index + 1, milliseconds };
  const headers = { "content-type": "application/json" };
  state = await ask("/answers", { method: "POST", headers, body: JSON.stringify(answer) });
  await next();
}

at("start").addEventListener("click", async () => {
  try {
    await document.documentElement.requestFullscreen?.();
  } catch {
    // A browser that refuses shows the page in its window.
  }
  await next();
});
at("play").addEventListener("click", play);
buttons.forEach((button, index) => button.addEventListener("click", () => choose(index)));
document.addEventListener("keydown", (event) => {
  if (!event.repeat && ["1", "2", "3"].includes(event.key)) choose(Number(event.key) - 1);
});

ask("/state").then((told) => {
  state = told;
  const left = state.questions - state.answered;
  at("extent").textContent = state.answered ? `${left} of ${state.questions} questions are left.` : `${state.questions} questions.`;
  at("start").textContent = state.answered ? "Go on" : "Start";
  show(left ? "welcome" : "end");
});
