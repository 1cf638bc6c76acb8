// What is seen: each is made of its declaration, and returns its element and `show(value)`.

const WIDTHS = { 1: 14, 2: 10, 3: 7 }; // of an image in a row of so many, in letters

const SHOWS = {
  images({ title, shape, rows, captions }) {
    const [height, width, ...image] = shape;
    const size = image.reduce((a, b) => a * b, 1);
    const grid = element("div", { class: "live-images" });
    const names = rows.length ? "minmax(3.5rem, max-content) " : "";
    const kind = rows.length ? "live-rowed" : width > 1 ? "live-wide" : "live-single";
    const widest = WIDTHS[width] ?? 4.8;
    grid.style.gridTemplateColumns = `${names}repeat(${width}, minmax(0, ${widest}rem))`;
    const canvases = [];
    for (let r = 0; r < height; r++) {
      if (rows.length) grid.append(element("span", {}, rows[r]));
      for (let c = 0; c < width; c++) {
        const canvas = element("canvas");
        canvases.push(canvas);
        grid.append(canvas);
      }
    }
    if (captions.length) {
      if (rows.length) grid.append(element("span"));
      grid.append(...captions.map((caption) => element("small", {}, caption)));
    }
    const show = (value) =>
      canvases.forEach((canvas, i) =>
        paint(canvas, value.subarray(i * size, (i + 1) * size), image),
      );
    const box = element(
      "figure",
      { class: kind, "aria-label": title },
      element("figcaption", {}, title),
      grid,
    );
    return { box, show };
  },

  bars({ title, options }) {
    const rows = options.map((option) => {
      const [bar, number] = [element("meter", { min: 0, max: 1 }), element("output")];
      return { bar, number, row: element("div", {}, element("span", {}, option), bar, number) };
    });
    const show = (value) =>
      rows.forEach(({ bar, number }, i) => {
        bar.value = value[i];
        bar.setAttribute("aria-label", `${options[i]}: ${number.textContent}`);
        number.textContent = `${(100 * value[i]).toFixed(0)} %`;
      });
    const box = element("figure", { class: "live-bars" }, element("figcaption", {}, title));
    box.append(...rows.map(({ row }) => row));
    return { box, show };
  },

  plane({ title, background, colours, side }, numbers) {
    const canvas = element("canvas", {
      class: "live-plane",
      role: "img",
      "aria-label": title,
      width: side,
      height: side,
    });
    const points = numbers[background];
    const inks = colours === null ? null : numbers[colours];
    const [xs, ys] = [0, 1].map((d) => points.filter((_, i) => i % 2 === d));
    const middle = [xs, ys].map((all) => (Math.min(...all) + Math.max(...all)) / 2);
    const spans = [xs, ys].map((all) => Math.max(...all) - Math.min(...all));
    const unit = (0.84 * side) / (Math.max(...spans) || 1);
    const place = (x, y) => [side / 2 + (x - middle[0]) * unit, side / 2 - (y - middle[1]) * unit];
    const show = (value) => {
      const context = canvas.getContext("2d");
      const dot = (x, y, radius) => {
        context.beginPath();
        context.arc(...place(x, y), radius, 0, 2 * Math.PI);
        context.fill();
      };
      context.clearRect(0, 0, side, side);
      for (let i = 0; i < xs.length; i++) {
        context.fillStyle = inks ? `hsl(${270 - 210 * inks[i]} 60% 55%)` : "#9aa3b2";
        dot(xs[i], ys[i], 3);
      }
      context.strokeStyle = context.fillStyle = "#1b1b1b";
      context.lineWidth = 3;
      context.beginPath();
      for (let i = 0; i < value.length; i += 2) context.lineTo(...place(value[i], value[i + 1]));
      context.stroke();
      dot(value[value.length - 2], value[value.length - 1], 9);
    };
    const caption = element("figcaption", {}, title);
    const box = element("figure", { class: "live-wide" }, caption, canvas);
    return { box, show };
  },
};
