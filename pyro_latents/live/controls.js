// What is moved: each control is made of its declaration, and returns its element, `value()` and
// `show(value)`, which a step calls that gives it. `moved(name)` hears of what a person does.

// By Box and Muller.
function standardNormal() {
  const radius = Math.sqrt(-2 * Math.log(1 - Math.random()));
  return radius * Math.cos(2 * Math.PI * Math.random());
}

const CONTROLS = {
  sliders(declared, numbers, moved) {
    const [low, high, start] = ["low", "high", "start"].map((end) => numbers[declared[end]]);
    const value = Float64Array.from(start);
    const rows = declared.labels.map((label, i) => {
      const id = freshId();
      const output = element("output", { for: id });
      const input = element("input", {
        type: "range",
        id,
        step: "any",
        input: () => {
          value[i] = Number(input.value);
          output.textContent = value[i].toFixed(2);
          moved(declared.name);
        },
        // Of a slider without steps, browsers differ in what a key does.
        keydown: (event) => {
          const way = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
          if (!way) return;
          event.preventDefault();
          input.value = Number(input.value) + (way * (high[i] - low[i])) / 40;
          input.dispatchEvent(new Event("input"));
        },
      });
      [input.min, input.max] = [low[i], high[i]];
      const row = element("div", {}, element("label", { for: id }, label), input, output);
      return { input, output, row };
    });

    function show(given) {
      given.forEach((number, i) => {
        const { input, output } = rows[i];
        value[i] = number;
        // What was inferred may be further out than a slider goes.
        input.min = Math.min(low[i], number);
        input.max = Math.max(high[i], number);
        input.value = number;
        output.textContent = number.toFixed(2);
      });
    }

    show(start);
    const seen = declared.shown.map((i) => rows[i].row);
    const others = rows.filter((_, i) => !declared.shown.includes(i)).map(({ row }) => row);
    const title = element("legend", {}, declared.title);
    const box = element("fieldset", { class: "live-sliders" }, title);
    // The sliders of a column begin below each other.
    box.style.setProperty("--label", `${Math.max(...declared.labels.map((l) => l.length))}ch`);
    box.append(element("div", { class: "live-rows" }, ...seen));
    if (others.length) {
      const more = element("summary", {}, `${others.length} more, which move less`);
      box.append(element("details", {}, more, element("div", { class: "live-rows" }, ...others)));
    }
    const button = (text, numbersOf) => {
      const click = () => {
        show(numbersOf());
        moved(declared.name);
      };
      box.append(element("button", { type: "button", click }, text), " ");
    };
    if (declared.rest) button(declared.rest, () => start);
    if (declared.normal) button("draw from the prior", () => start.map(standardNormal));
    return { box, show, value: () => value };
  },

  choice(declared, numbers, moved) {
    const value = new Float64Array(declared.options.length);
    value[0] = 1;
    const group = freshId();
    const inputs = declared.options.map((_, i) =>
      element("input", {
        type: "radio",
        name: group,
        id: `${group}-${i}`,
        change: () => {
          value.fill(0);
          value[i] = 1;
          moved(declared.name);
        },
      }),
    );
    const labelled = declared.options.map((option, i) =>
      element("span", {}, inputs[i], element("label", { for: inputs[i].id }, option)),
    );
    const show = (given) => {
      value.set(given);
      inputs[value.indexOf(1)].checked = true;
    };
    show(value.slice());
    const title = element("legend", {}, declared.title);
    const box = element("fieldset", { class: "live-choice" }, title, ...labelled);
    return { box, show, value: () => value };
  },

  picture(declared, numbers, moved) {
    const { shape, captions } = declared;
    const size = shape.reduce((a, b) => a * b, 1);
    const all = numbers[declared.examples];
    const examples = captions.map((_, i) => all.subarray(i * size, (i + 1) * size));
    let value = Float64Array.from(examples[0]);
    const drawing = drawingCanvas(shape, declared.title, (pixels) => {
      value = pixels;
      moved(declared.name);
    });
    const buttons = examples.map((example, i) => {
      const canvas = element("canvas");
      paint(canvas, example, shape);
      const pick = () => {
        show(example);
        moved(declared.name);
      };
      const [type, name] = ["button", captions[i]];
      return element("button", { type, "aria-label": name, title: name, click: pick }, canvas);
    });
    const button = (text, click) => element("button", { type: "button", click }, text);

    function show(given) {
      value = Float64Array.from(given);
      drawing.show(value);
    }

    show(examples[0]);
    const box = element(
      "fieldset",
      { class: "live-picture" },
      element("legend", {}, declared.title),
      drawing.canvas,
      element("p", {}, button("clear", drawing.clear), button("centre", drawing.centre)),
      element("p", { class: "live-examples" }, ...buttons),
    );
    return { box, show, value: () => value };
  },
};
