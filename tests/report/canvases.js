// Run the script of a page with canvases that note what is drawn on them, and print that as JSON.
// Standard input: {script, molecules, size: [width, height], keys}; `keys` are pressed at the end.
const { script, molecules, size, keys } = JSON.parse(require("fs").readFileSync(0, "utf-8"));

const canvases = molecules.map((molecule) => {
  let drawn = [];
  let shape;
  const listeners = {};
  const pen = {
    setTransform() {},
    beginPath() {},
    arc(x, y, radius) { shape = { from: [x, y], to: [x, y], radius }; },
    moveTo(x, y) { shape = { from: [x, y] }; },
    lineTo(x, y) { shape.to = [x, y]; },
    fill() { drawn.push({ ...shape, colour: pen.fillStyle }); },
    stroke() { if (!shape.radius) drawn.push({ ...shape, radius: pen.lineWidth / 2, colour: pen.strokeStyle }); },
  };
  return {
    dataset: { molecule },
    clientWidth: size[0],
    clientHeight: size[1],
    set width(_) { drawn = []; },  // as a browser: a new size clears the canvas
    getContext: () => pen,
    addEventListener: (name, listener) => { listeners[name] = listener; },
    press: (key) => listeners.keydown({ key, preventDefault() {} }),
    drawn: () => drawn,
  };
});
const document = { querySelectorAll: (what) => (what === "canvas[data-molecule]" ? canvases : []) };
const window = { addEventListener() {} };
new Function("document", "window", script)(document, window);
canvases.forEach((canvas) => keys.forEach(canvas.press));
console.log(JSON.stringify(canvases.map((canvas) => canvas.drawn())));
