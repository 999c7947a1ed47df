"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const svg = document.getElementById("ecg");
  const layer = document.getElementById("tokens");
  const select = document.getElementById("method");
  const told = document.getElementById("told");
  const named = (id, text) => { document.getElementById(id).textContent = text; };
  const short = (value) => Number(value).toPrecision(3);

  // Tokens: one rectangle for each part of a lead that a token covers.
  const rectangles = data.spans.map(([row, start, stop, token]) => {
    const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    const left = data.left + start * data.mm_per_sample;
    rect.setAttribute("x", left.toFixed(3));
    rect.setAttribute("y", (data.tops[row]).toFixed(3));
    rect.setAttribute("width", ((stop - start) * data.mm_per_sample).toFixed(3));
    rect.setAttribute("height", data.row_heights[row].toFixed(3));
    rect.dataset.token = token;
    rect.dataset.row = row;
    rect.dataset.start = start;
    rect.dataset.stop = stop;
    layer.appendChild(rect);
    return rect;
  });

  // Orange for, blue against: told apart by all kinds of colour vision. The paper shows through where there is little.
  const colourOf = (value, limit) => {
    const share = Math.min(Math.abs(value) / limit, 1);
    return `rgba(${value < 0 ? "50,100,190" : "235,115,15"},${(0.9 * share).toFixed(3)})`;
  };
  // Half white, so that the trace is seen on every colour.
  const tinted = (colour) => `${colour}80`;

  function paint() {
    const method = data.methods[select.value];
    const spans = data.spans;
    rectangles.forEach((rect, place) => {
      const token = spans[place][3];
      let fill = "none";
      if (select.value === "tokens") fill = tinted(data.colours[token]);
      else if (method) fill = colourOf(method.density[token], method.limit);
      rect.setAttribute("fill", fill);
    });
    const ramp = document.getElementById("ramp");
    ramp.style.display = method ? "inline-block" : "none";
    named("low", method ? (method.signed ? `-${short(method.limit)} or less` : "0") : "");
    named("high", method ? `${short(method.limit)} or more` : "");
    named("unit", method ? `${method.unit}. ${method.summary}` :
      (select.value === "tokens" ? "colour: id of the token; darker: as the one before it" : ""));
    if (method) {
      const limit = method.limit;
      const stops = (method.signed ? [-1, -0.5, 0, 0.5, 1] : [0, 0.5, 1]).map((at) => colourOf(at * limit, limit));
      ramp.style.background = `linear-gradient(to right, ${stops.join(",")})`;
    }
    words(method);
  }

  function words(method) {
    const box = document.getElementById("words");
    box.replaceChildren();
    const values = method ? method.words : data.words.map(() => 0);
    const seen = values.filter((_, place) => data.words[place].kind !== "special").map(Math.abs);
    const largest = Math.max(...seen, 1e-12);
    data.words.forEach((word, place) => {
      const element = document.createElement("span");
      element.className = `word ${word.kind}${values[place] < 0 ? " minus" : ""}`;
      const bar = document.createElement("i");
      const height = Math.min(Math.abs(values[place]) / largest, 1) * 46;
      bar.style.height = word.kind === "special" ? "0" : `${height.toFixed(1)}px`;
      element.append(bar, document.createTextNode(word.text));
      element.title = method ? `${short(values[place])} ${method.word_unit}` : "";
      box.appendChild(element);
    });
  }

  // Zoom: the view box, in mm of ECG paper.
  const all = svg.getAttribute("viewBox").split(" ").map(Number);
  let view = [...all];
  const show = () => svg.setAttribute("viewBox", view.map((part) => part.toFixed(3)).join(" "));
  function zoom(factor, at) {
    const width = Math.min(Math.max(view[2] * factor, 10), all[2]);
    const real = width / view[2];
    view = [at.x - (at.x - view[0]) * real, at.y - (at.y - view[1]) * real, width, view[3] * real];
    keepInside();
    show();
  }
  function keepInside() {
    view[0] = Math.min(Math.max(view[0], all[0]), all[0] + all[2] - view[2]);
    view[1] = Math.min(Math.max(view[1], all[1]), all[1] + all[3] - view[3]);
  }
  const place = (event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    return point.matrixTransform(svg.getScreenCTM().inverse());
  };
  const middle = () => ({ x: view[0] + view[2] / 2, y: view[1] + view[3] / 2 });
  document.getElementById("closer").addEventListener("click", () => zoom(0.6, middle()));
  document.getElementById("wider").addEventListener("click", () => zoom(1 / 0.6, middle()));
  document.getElementById("whole").addEventListener("click", () => { view = [...all]; show(); });
  svg.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page is scrolled
    event.preventDefault();
    zoom(event.deltaY < 0 ? 0.8 : 1.25, place(event));
  }, { passive: false });
  let held = null;
  svg.addEventListener("pointerdown", (event) => { held = place(event); svg.setPointerCapture(event.pointerId); });
  svg.addEventListener("pointerup", () => { held = null; });
  svg.addEventListener("pointercancel", () => { held = null; });
  svg.addEventListener("pointermove", (event) => {
    if (held) {
      const now = place(event);
      view[0] += held.x - now.x;
      view[1] += held.y - now.y;
      keepInside();
      show();
      return;
    }
    const rect = event.target.closest("rect[data-token]");
    if (!rect) return;
    const { token, row, start, stop } = rect.dataset;
    const method = data.methods[select.value];
    const from = (start / data.sampling_rate).toFixed(3);
    const to = (stop / data.sampling_rate).toFixed(3);
    const value = method ? `; ${short(method.values[token])} ${method.word_unit}` : "";
    told.textContent = `${data.leads[row]}, ${from} s to ${to} s: token <|ecg_${data.ids[token]}|>${value}`;
  });
  select.addEventListener("change", paint);
  paint();
  document.documentElement.dataset.ready = "true";
})();
