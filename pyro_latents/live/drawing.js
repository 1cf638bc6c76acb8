// A canvas to draw on, by hand or by the arrow keys; pixels are those that a network reads.

const PEN_RADIUS = 1.1; // in pixels of an image of 28
const SCALE = 8; // of the canvas to an image
const HOW_TO_DRAW =
  "Draw here. By keyboard: arrow keys move the pen, the space bar puts it down and lifts it.";

// Return the canvas, `show(pixels)`, `clear()` and `centre()`; `changed(pixels)` hears of strokes.
function drawingCanvas([channels, height, width], label, changed) {
  const pen = { x: (width - 1) / 2, y: (height - 1) / 2, down: false };
  let pixels = new Float64Array(channels * height * width);
  let isDrawing = false; // else the first stroke begins on white
  const small = element("canvas");
  const canvas = element("canvas", {
    class: "live-drawing",
    tabindex: 0,
    role: "application",
    "aria-label": `${label}. ${HOW_TO_DRAW}`,
    width: width * SCALE,
    height: height * SCALE,
    pointerdown: (event) => {
      // Of a pointer that a program made up there is nothing to capture.
      if (event.isTrusted) canvas.setPointerCapture(event.pointerId);
      [pen.x, pen.y] = placeOf(event);
      pen.down = true;
      strokeTo(pen.x, pen.y);
    },
    pointermove: (event) => {
      if (pen.down && event.buttons) strokeTo(...placeOf(event));
    },
    pointerup: () => (pen.down = false),
    pointercancel: () => (pen.down = false),
    keydown: (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const move = step[event.key] ?? (event.key === " " ? [0, 0] : null);
      if (!move) return;
      event.preventDefault();
      if (event.key === " ") pen.down = !pen.down;
      const x = Math.min(Math.max(pen.x + move[0], 0), width - 1);
      const y = Math.min(Math.max(pen.y + move[1], 0), height - 1);
      if (pen.down) strokeTo(x, y);
      [pen.x, pen.y] = [x, y];
      draw();
    },
    focus: () => draw(),
    blur: () => {
      pen.down = false;
      draw();
    },
  });

  function placeOf(event) {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * width - 0.5,
      ((event.clientY - box.top) / box.height) * height - 0.5,
    ];
  }

  function strokeTo(x, y) {
    if (!isDrawing) pixels = new Float64Array(pixels.length);
    isDrawing = true;
    ink(pixels, [channels, height, width], [pen.x, pen.y], [x, y]);
    [pen.x, pen.y] = [x, y];
    draw();
    changed(pixels);
  }

  function draw() {
    paint(small, pixels, [channels, height, width]);
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, canvas.width, canvas.height);
    if (document.activeElement !== canvas) return;
    context.strokeStyle = pen.down ? "#c00" : "#06c";
    context.lineWidth = 2;
    context.beginPath();
    context.arc((pen.x + 0.5) * SCALE, (pen.y + 0.5) * SCALE, SCALE, 0, 2 * Math.PI);
    context.stroke();
  }

  return {
    canvas,
    show(given) {
      pixels = Float64Array.from(given);
      isDrawing = false;
      draw();
    },
    clear() {
      pixels = new Float64Array(pixels.length);
      draw();
      changed(pixels);
    },
    centre() {
      pixels = centred(pixels, [channels, height, width]);
      draw();
      changed(pixels);
    },
  };
}

// Put ink along a line, with a soft edge, on all channels.
function ink(pixels, [channels, height, width], [x0, y0], [x1, y1]) {
  const radius = (PEN_RADIUS * width) / 28;
  const length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const along = length ? ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length : 0;
      const part = Math.min(Math.max(along, 0), 1);
      const far = Math.hypot(x - x0 - part * (x1 - x0), y - y0 - part * (y1 - y0));
      const dark = Math.min(Math.max(radius + 0.5 - far, 0), 1);
      for (let c = 0; c < channels; c++) {
        const at = (c * height + y) * width + x;
        pixels[at] = Math.max(pixels[at], dark);
      }
    }
  }
}

// Move the ink so that its mean is in the middle, as it is in MNIST.
function centred(pixels, [channels, height, width]) {
  let [total, across, down] = [0, 0, 0];
  pixels.forEach((dark, at) => {
    total += dark;
    across += dark * (at % width);
    down += dark * (Math.floor(at / width) % height);
  });
  if (!total) return pixels;
  const right = Math.round((width - 1) / 2 - across / total);
  const below = Math.round((height - 1) / 2 - down / total);
  const moved = new Float64Array(pixels.length);
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const [u, v] = [x - right, y - below];
        if (u < 0 || u >= width || v < 0 || v >= height) continue;
        moved[(c * height + y) * width + x] = pixels[(c * height + v) * width + u];
      }
    }
  }
  return moved;
}
