"use strict";
// The scatter, its filter, the sortable table and the pinned layer tables of a report.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, text, attributes = {}) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const value = (name, row) => {
    const column = data.columns[name];
    return "values" in column ? column.values[row] : column.value;
  };
  const shown = (name, row) => {
    const found = value(name, row);
    const column = data.columns[name];
    if (found === null || found === undefined) return "";
    if (column.kind === "text" || typeof found !== "number") return String(found);
    if (column.whole) return found.toLocaleString("en-US");
    if (column.unit === "%") return found.toFixed(2);
    return Math.abs(found) >= 1e4
      ? Math.round(found).toLocaleString("en-US")
      : String(Number(found.toPrecision(4)));
  };
  const title = (row) =>
    [`trial ${value("trial", row)}`, ...data.axes.map((a) => `${a} ${shown(a, row)}`)].join(", ");

  // Okabe and Ito's colours, which the colour-blind tell apart; shapes for print in grey.
  const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"];
  const MARKERS = ["circle", "square", "triangle", "diamond", "inverted_triangle", "hex", "star"];
  const OUTLINES = [ // of the shapes, in a box of 14, for the legend
    "M7 1a6 6 0 1 0 .01 0z", "M2 2h10v10H2z", "M7 1l6 11H1z", "M7 0l5 7-5 7-5-7z",
    "M7 13L1 2h12z", "M4 1h6l4 6-4 6H4L0 7z", "M7 0l2 5h5l-4 3 2 6-5-4-5 4 2-6-4-3h5z",
  ];
  const STEP = 100; // rows that the table shows at a time

  const rows = [...Array(data.trials).keys()];
  const onFront = new Set(data.front);
  const state = {
    x: data.x, y: data.y,
    colour: data.colours.find((name) => distinct(name).length <= COLOURS.length) ?? "",
    bounds: {"x-low": null, "x-high": null, "y-low": null, "y-high": null},
    sort: "trial", descending: false, most: STEP, pins: [],
  };

  // --- the controls -----------------------------------------------------------------------------

  const coloured = data.colours.filter((name) => distinct(name).length <= COLOURS.length);
  for (const [id, names] of [["x", data.numeric], ["y", data.numeric], ["colour", coloured]]) {
    for (const name of names) $(id).append(make("option", data.columns[name].heading, {value: name}));
    $(id).value = state[id];
    $(id).addEventListener("change", () => {
      state[id] = $(id).value;
      if (id !== "colour") {
        clearBounds();
        $(`log-${id}`).checked = spansDecades(state[id]);
      }
      draw();
      fill();
    });
  }
  for (const id of ["x", "y"]) {
    $(`log-${id}`).checked = spansDecades(state[id]);
    $(`log-${id}`).addEventListener("change", draw);
  }
  for (const id of Object.keys(state.bounds)) {
    $(id).addEventListener("change", () => {
      state.bounds[id] = $(id).value === "" ? null : Number($(id).value);
      fill();
    });
  }
  $("clear").addEventListener("click", () => {
    clearBounds();
    fill();
  });
  $("more").addEventListener("click", () => {
    state.most += STEP;
    fill();
  });

  function spansDecades(name) {
    const known = rows.map((row) => value(name, row)).filter((v) => v !== null);
    const [low, high] = [Math.min(...known.slice(0, 1e5)), Math.max(...known.slice(0, 1e5))];
    return low > 0 && high / low > 10;
  }
  function clearBounds() {
    for (const id of Object.keys(state.bounds)) {
      state.bounds[id] = null;
      $(id).value = "";
    }
  }

  // --- the scatter ------------------------------------------------------------------------------

  function distinct(name) {
    return [...new Set(rows.map((row) => shown(name, row)))];
  }

  const page = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  /** Thousands and up by SI's letters: Bokeh writes a million as "m". */
  class SI extends Bokeh.NumeralTickFormatter {
    doFormat(ticks, options) {
      return super.doFormat(ticks, options).map((text) => text.replace("m", "M").replace("b", "G").replace("t", "T"));
    }
  }

  /** A column's heading, with the label that an accuracy never stands without. */
  function axisLabel(name) {
    const {heading, remark} = data.columns[name];
    return remark.startsWith("proxy") ? `${heading}, ${remark}` : heading;
  }

  function figure(labels, size) {
    const log = (id) => ($(`log-${id}`).checked ? "log" : "linear");
    const ink = page("--ink");
    const plot = Bokeh.Plotting.figure({
      sizing_mode: "stretch_width", height: 420, min_border: 4,
      toolbar_location: size ? null : "above",
      tools: size ? "" : "pan,wheel_zoom,box_select,tap,reset",
      x_axis_type: size ? "linear" : log("x"), y_axis_type: size ? "linear" : log("y"),
      x_axis_label: labels[0], y_axis_label: labels[1],
      background_fill_color: null, border_fill_color: null, outline_line_color: null,
    });
    for (const axis of [...plot.below, ...plot.left]) {
      axis.axis_label_text_color = axis.major_label_text_color = ink;
      axis.axis_label_text_font_style = "normal";
      axis.axis_line_color = axis.major_tick_line_color = page("--soft");
      axis.minor_tick_line_color = null;
      axis.formatter = new SI({format: "0.[000]a"});
    }
    for (const grid of plot.center) grid.grid_line_color = page("--grid");
    plot.toolbar.logo = null;
    // Where fingers point, a drag scrolls the page.
    if (!size) plot.toolbar.active_drag = matchMedia("(pointer: coarse)").matches ? null : plot.toolbar.tools.find((tool) => tool.type === "BoxSelectTool");
    return plot;
  }

  function draw() {
    const known = rows.filter(
      (row) => [state.x, state.y].every((n) => value(n, row) !== null && value(n, row) !== undefined)
        && (!$("log-x").checked || value(state.x, row) > 0)
        && (!$("log-y").checked || value(state.y, row) > 0));
    const all = state.colour ? distinct(state.colour) : [];
    const groups = all.length <= COLOURS.length ? all : [];
    const place = (row) => Math.max(0, groups.indexOf(state.colour ? shown(state.colour, row) : ""));
    const source = new Bokeh.ColumnDataSource({data: {
      x: known.map((row) => value(state.x, row)),
      y: known.map((row) => value(state.y, row)),
      row: known,
      colour: known.map((row) => COLOURS[place(row)]),
      marker: known.map((row) => MARKERS[place(row)]),
      edge: known.map((row) => (onFront.has(row) ? page("--ink") : COLOURS[place(row)])),
      width: known.map((row) => (onFront.has(row) ? 2 : 0.5)),
      name: known.map(title),
      xs: known.map((row) => shown(state.x, row)),
      ys: known.map((row) => shown(state.y, row)),
    }});
    const plot = figure([state.x, state.y].map(axisLabel), false);
    if (known.length > 2000) plot.output_backend = "webgl";
    const bars = state.y === "top1" && "top1_ci_low" in data.columns;
    const spread = bars ? known.filter((row) => value("top1_ci_low", row) !== null) : [];
    if (spread.length) {
      plot.segment({
        x0: spread.map((row) => value(state.x, row)), x1: spread.map((row) => value(state.x, row)),
        y0: spread.map((row) => value("top1_ci_low", row)),
        y1: spread.map((row) => value("top1_ci_high", row)), line_color: "#888888",
      });
    }
    const points = plot.scatter({field: "x"}, {field: "y"}, {
      source, size: known.length > 2000 ? 5 : 10, marker: {field: "marker"},
      fill_color: {field: "colour"}, line_color: {field: "edge"}, line_width: {field: "width"},
      nonselection_fill_alpha: 0.25, nonselection_line_alpha: 0.25,
    });
    plot.add_tools(new Bokeh.HoverTool({
      renderers: [points],
      tooltips: [["", "@name"], [state.x, "@xs"], [state.y, "@ys"]],
    }));
    plot.on_event("selectiongeometry", (event) => {
      const box = event.geometry;
      if (!event.final) return;
      if (box.type === "point") {
        for (const index of source.selected.indices.slice(0, 5)) pin(known[index]);
        source.selected.indices = [];
      } else if (box.type === "rect") {
        const ends = {"x-low": box.x0, "x-high": box.x1, "y-low": box.y0, "y-high": box.y1};
        for (const [id, end] of Object.entries(ends)) {
          state.bounds[id] = end;
          $(id).value = Number(end.toPrecision(5));
        }
        fill();
      }
    });
    plot.on_event("reset", () => {
      clearBounds();
      fill();
    });
    $("plot").replaceChildren();
    Bokeh.Plotting.show(plot, $("plot"));
    legend(groups);
    const left = rows.length - known.length;
    $("plot-note").textContent = [
      "Outlined: the Pareto front of the objectives.",
      spread.length ? "Bars: 95% interval over seeds and test images." : "",
      ...[state.x, state.y].map((n) => data.columns[n].remark && `${n}: ${data.columns[n].remark}.`),
      left ? `${left} trials have no such values.` : "",
    ].filter(Boolean).join(" ");
    for (const id of ["x", "y"]) $(`${id}-name`).textContent = state[id];
    document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
  }

  function legend(groups) {
    $("legend").replaceChildren(...groups.map((name, place) => {
      const item = make("li");
      const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
      box.setAttribute("viewBox", "0 0 14 14");
      box.setAttribute("aria-hidden", "true");
      shape.setAttribute("d", OUTLINES[place]);
      shape.setAttribute("fill", COLOURS[place]);
      box.append(shape);
      item.append(box, `${state.colour} ${name}`);
      return item;
    }));
  }

  // --- the table --------------------------------------------------------------------------------

  function within(row) {
    const {bounds} = state;
    const inside = (name, low, high) => {
      if (low === null && high === null) return true;
      const found = value(name, row);
      return found !== null && (low === null || found >= low) && (high === null || found <= high);
    };
    return inside(state.x, bounds["x-low"], bounds["x-high"])
      && inside(state.y, bounds["y-low"], bounds["y-high"]);
  }

  function fill() {
    const kept = rows.filter(within);
    const sign = state.descending ? -1 : 1;
    kept.sort((a, b) => {
      const [u, v] = [value(state.sort, a), value(state.sort, b)];
      if (u === v) return a - b;
      if (u === null || u === undefined) return 1;
      if (v === null || v === undefined) return -1;
      return sign * (u < v ? -1 : 1);
    });
    $("count").textContent = `${kept.length.toLocaleString("en-US")} of ${rows.length.toLocaleString("en-US")} trials`;
    const body = $("trials").tBodies[0];
    body.replaceChildren(...kept.slice(0, state.most).map(line));
    $("more").hidden = kept.length <= state.most;
  }

  function line(row) {
    const entry = make("tr", undefined, {"data-row": row});
    const cell = make("td");
    if (row in data.layers) {
      const pressed = state.pins.includes(row);
      const button = make("button", pressed ? "Unpin" : "Pin", {
        type: "button", "aria-pressed": String(pressed), "aria-label": `Pin ${title(row)}`,
      });
      button.addEventListener("click", () => {
        pin(row);
        document.querySelector(`#trials tr[data-row="${row}"] button`)?.focus();
      });
      cell.append(button);
    }
    entry.append(cell, ...data.table.map((name) => make("td", shown(name, row), alignment(name))));
    return entry;
  }

  const alignment = (name) => (data.columns[name].kind === "number" ? {class: "number"} : {});

  function head() {
    const entry = make("tr");
    entry.append(make("th", "", {scope: "col"}));
    for (const name of data.table) {
      const cell = make("th", undefined, {scope: "col", "aria-sort": "none", ...alignment(name)});
      const button = make("button", data.columns[name].heading, {type: "button"});
      button.addEventListener("click", () => {
        state.descending = state.sort === name && !state.descending;
        state.sort = name;
        order();
        fill();
      });
      cell.append(button);
      if (data.columns[name].remark) cell.append(make("small", data.columns[name].remark));
      entry.append(cell);
    }
    $("trials").tHead.replaceChildren(entry);
    order();
  }
  function order() {
    [...$("trials").tHead.rows[0].cells].slice(1).forEach((cell, place) => {
      const here = data.table[place] === state.sort;
      cell.setAttribute("aria-sort", !here ? "none" : state.descending ? "descending" : "ascending");
    });
  }

  // --- pinned layer tables ----------------------------------------------------------------------

  function pin(row) {
    if (!(row in data.layers)) {
      $("plot-note").textContent = "The page holds no layer table of this trial.";
      return;
    }
    state.pins = state.pins.includes(row)
      ? state.pins.filter((other) => other !== row) : [row, ...state.pins];
    $("pins").replaceChildren(...state.pins.map(pinned));
    fill();
  }

  function pinned(row) {
    const card = make("article", undefined, {class: "pin", "data-row": row});
    card.append(make("h3", title(row)));
    const close = make("button", "Unpin", {type: "button", "aria-label": `Unpin ${title(row)}`});
    close.addEventListener("click", () => {
      pin(row);
      document.querySelector("#pins button, #trials tbody button")?.focus();
    });
    const box = make("div", undefined, {
      class: "scroll", tabindex: "0", role: "region", "aria-label": `Layers of ${title(row)}`,
    });
    const table = make("table", undefined, {class: "numbers"});
    table.append(make("caption", `Layers at ${data.layerInput}x${data.layerInput}, one image`));
    const heading = table.createTHead().insertRow();
    for (const text of ["layer", "output", "filters", "params", "MACs", "activations"]) {
      heading.append(make("th", text, {scope: "col"}));
    }
    const body = table.createTBody();
    const totals = [0, 0, 0];
    for (const layer of data.layers[row]) {
      const entry = body.insertRow();
      layer.forEach((found, place) => {
        if (place > 2) totals[place - 3] += found;
        entry.append(make("td", typeof found === "number" ? found.toLocaleString("en-US") : found));
      });
    }
    const foot = table.createTFoot().insertRow();
    foot.append(make("th", "total", {scope: "row"}), make("td"), make("td"));
    for (const total of totals) foot.append(make("td", total.toLocaleString("en-US")));
    box.append(table);
    card.append(close, box);
    return card;
  }

  data.paper.forEach((paper, number) => {
    const middle = (Math.min(...paper.size_mb) + Math.max(...paper.size_mb)) / 2;
    const right = (x) => x > middle;
    const plot = figure(["size, as printed (MB)", "ImageNet top-5 (%)"], true);
    plot.height = 260;
    const source = new Bokeh.ColumnDataSource({
      data: {
        x: paper.size_mb, y: paper.top5, name: paper.labels,
        // Into the plot: a label at the right edge ends at its point.
        align: paper.size_mb.map((x) => (right(x) ? "right" : "left")),
        offset: paper.size_mb.map((x) => (right(x) ? -10 : 10)),
      },
    });
    plot.scatter({field: "x"}, {field: "y"}, {
      source, size: 10, marker: "square", fill_color: null, line_color: page("--soft"), line_width: 2,
    });
    plot.text({field: "x"}, {field: "y"}, {field: "name"}, {
      source, x_offset: {field: "offset"}, text_align: {field: "align"}, text_baseline: "middle",
      text_font_size: "12px", text_color: page("--ink"),
    });
    Bokeh.Plotting.show(plot, document.getElementById(`paper-${number}`));
  });
  head();
  draw();
  fill();
})();
