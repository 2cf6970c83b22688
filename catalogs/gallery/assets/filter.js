/* Conditions `column operator value AND ...` as one function of a row; no evaluation of anything typed. */
"use strict";
(function (scope) {
  const TOKEN = /\s*(?:('(?:[^']|'')*')|(<=|>=|<>|!=|==|=|<|>)|([A-Za-z_][A-Za-z0-9_]*)|([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(\S))/gy;

  function tokens(text) {
    const found = [];
    TOKEN.lastIndex = 0;
    let match;
    while (TOKEN.lastIndex < text.length && (match = TOKEN.exec(text))) {
      if (match[1] !== undefined) found.push({ kind: "text", value: match[1].slice(1, -1).replace(/''/g, "'") });
      else if (match[2] !== undefined) found.push({ kind: "operator", value: match[2] });
      else if (match[3] !== undefined) found.push({ kind: "word", value: match[3] });
      else if (match[4] !== undefined) found.push({ kind: "number", value: Number(match[4]) });
      else throw new Error("wanted column operator value, found " + JSON.stringify(match[5]));
    }
    return found;
  }

  /* A text with % and _ as SQL's LIKE has them, compared without regard to case. */
  function like(pattern) {
    const source = Array.from(pattern, (c) => (c === "%" ? "[^]*" : c === "_" ? "[^]" : c.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"))).join("");
    const expression = new RegExp("^" + source + "$", "iu");
    return (value) => expression.test(String(value));
  }

  function compared(operator, wanted, kind) {
    const order = {
      "=": (d) => d === 0, "==": (d) => d === 0, "!=": (d) => d !== 0, "<>": (d) => d !== 0,
      "<": (d) => d < 0, "<=": (d) => d <= 0, ">": (d) => d > 0, ">=": (d) => d >= 0,
    }[operator];
    if (kind === "number") return (value) => order(value - wanted);
    if (kind === "bool") return (value) => order(Number(value) - Number(wanted));
    return (value) => order(String(value) < wanted ? -1 : String(value) > wanted ? 1 : 0);
  }

  /* columns: [{name, kind}]; returns row => boolean, rows being lists in the order of the columns. */
  function parseWhere(text, columns) {
    const list = tokens(text);
    if (!list.length) return () => true;
    const tests = [];
    let at = 0;
    const is = (word) => list[at] && list[at].kind === "word" && list[at].value.toUpperCase() === word;
    const shown = (token) => (token === undefined ? "the end" : JSON.stringify(token.value));
    for (;;) {
      let negated = false;
      if (is("NOT")) { negated = true; at += 1; }
      const name = list[at++];
      const index = name && name.kind === "word" ? columns.findIndex((c) => c.name === name.value.toLowerCase()) : -1;
      if (index < 0) throw new Error("wanted a column, found " + shown(name) + "; columns are listed under “Columns and filters”");
      const kind = columns[index].kind;
      let test;
      if (is("IS")) {
        at += 1;
        const not = is("NOT");
        if (not) at += 1;
        if (!is("NULL")) throw new Error("wanted IS NULL or IS NOT NULL, found " + shown(list[at]));
        at += 1;
        test = (row) => (row[index] === null) !== not;
      } else if (is("LIKE") || (list[at] && list[at].kind === "operator")) {
        const operator = list[at++].value.toUpperCase();
        let wanted = list[at++];
        if (wanted === undefined || wanted.kind === "operator") throw new Error("wanted a value after " + operator + ", found " + shown(wanted));
        if (kind === "number" && operator !== "LIKE") {
          if (wanted.kind !== "number") throw new Error(columns[index].name + " is a number, found " + shown(wanted));
          wanted = wanted.value;
        } else if (kind === "bool") {
          if (operator === "LIKE" || !/^(true|false)$/i.test(String(wanted.value))) throw new Error(columns[index].name + " is true or false, found " + shown(wanted));
          wanted = /^true$/i.test(wanted.value);
        } else wanted = String(wanted.value);
        const holds = operator === "LIKE" ? like(wanted) : compared(operator, wanted, kind);
        test = (row) => row[index] !== null && holds(row[index]);
      } else if (kind === "bool") {
        test = (row) => row[index] === true;
        if (negated) { negated = false; test = (row) => row[index] === false; }
      } else throw new Error("wanted an operator after " + columns[index].name + ", found " + shown(list[at]));
      /* NOT of something unknown is unknown, as in SQL; IS NULL is always known. */
      const inner = test;
      tests.push(negated ? (row) => row[index] !== null && !inner(row) : inner);
      if (at === list.length) break;
      if (!is("AND")) throw new Error("wanted AND between conditions, found " + shown(list[at]));
      at += 1;
    }
    return (row) => tests.every((t) => t(row));
  }

  scope.parseWhere = parseWhere;
})(typeof window === "undefined" ? globalThis : window);
