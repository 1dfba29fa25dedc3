// Draw molecules as balls and sticks: drag or use the arrow keys to rotate, + and - to zoom.
for (const canvas of document.querySelectorAll("canvas[data-molecule]")) {
  const { atoms, bonds } = JSON.parse(canvas.dataset.molecule);
  const centre = [0, 1, 2].map((k) => atoms.reduce((s, a) => s + a.at[k], 0) / atoms.length);
  let points = atoms.map((a) => a.at.map((x, k) => x - centre[k]));
  const reach = Math.max(...points.map((p) => Math.hypot(...p))) + 0.8;
  let zoom = 1;

  const turn = (aboutY, aboutX) => {
    const [c, s, d, t] = [Math.cos(aboutY), Math.sin(aboutY), Math.cos(aboutX), Math.sin(aboutX)];
    points = points.map(([x, y, z]) => {
      const [u, w] = [c * x + s * z, c * z - s * x];
      return [u, d * y - t * w, t * y + d * w];
    });
    draw();
  };

  const draw = () => {
    const sharp = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * sharp;
    canvas.height = height * sharp;
    const pen = canvas.getContext("2d");
    const scale = (zoom * Math.min(width, height)) / (2 * reach);
    pen.setTransform(sharp, 0, 0, sharp, 0, 0);
    const place = ([x, y, z]) => [width / 2 + scale * x, height / 2 - scale * y, z];
    const pieces = [];
    atoms.forEach((atom, i) => {
      const [x, y, z] = place(points[i]);
      pieces.push([z, () => {
        pen.beginPath();
        pen.arc(x, y, scale * atom.radius, 0, 2 * Math.PI);
        pen.fillStyle = atom.colour;
        pen.fill();
        pen.lineWidth = 1;
        pen.strokeStyle = "#333";
        pen.stroke();
      }]);
    });
    // Each half of a bond has the colour of its atom and starts at the rim of the atom.
    for (const [i, j] of bonds) {
      const middle = points[i].map((x, k) => (x + points[j][k]) / 2);
      for (const end of [i, j]) {
        const half = Math.hypot(...middle.map((x, k) => x - points[end][k]));
        const share = Math.min(1, (0.85 * atoms[end].radius) / half);
        const rim = points[end].map((x, k) => x + share * (middle[k] - x));
        const [[x, y], [u, v]] = [place(rim), place(middle)];
        pieces.push([(rim[2] + middle[2]) / 2, () => {
          for (const [thick, colour] of [[0.26, "#333"], [0.2, atoms[end].colour]]) {
            pen.beginPath();
            pen.moveTo(x, y);
            pen.lineTo(u, v);
            pen.lineWidth = scale * thick;
            pen.strokeStyle = colour;
            pen.stroke();
          }
        }]);
      }
    }
    pieces.sort((a, b) => a[0] - b[0]).forEach(([, paint]) => paint());
  };

  canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) turn(event.movementX / 90, event.movementY / 90);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (event.key === "+") zoom *= 1.1;
    else if (event.key === "-") zoom /= 1.1;
    else if (!(event.key in step)) return;
    event.preventDefault();
    turn(...(step[event.key] || [0, 0]));
  });
  window.addEventListener("resize", draw);
  turn(0.4, 0.3);
}
