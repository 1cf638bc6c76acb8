// Elements of the page.

let elementCount = 0;

// Make an element with attributes (functions are listeners) and children.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key, value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function freshId() {
  elementCount += 1;
  return `live-${elementCount}`;
}

// Draw an image, `channels height width` in [0, 1]; ink of grey ones is dark on paper.
function paint(canvas, pixels, [channels, height, width]) {
  if (canvas.width !== width || canvas.height !== height) {
    [canvas.width, canvas.height] = [width, height];
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const count = width * height;
  for (let p = 0; p < count; p++) {
    for (let c = 0; c < 3; c++) {
      const value = Math.min(Math.max(pixels[(channels === 3 ? c * count : 0) + p], 0), 1);
      image.data[4 * p + c] = 255 * (channels === 3 ? value : 1 - value);
    }
    image.data[4 * p + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}
