// Compares what llama.cpp generated with what nibble generated, prompt by prompt.
//
//     node compare.mjs LLAMACPP.json NIBBLE.json LABEL [--strict]
//
// LLAMACPP.json is what interop.mjs printed. NIBBLE.json is a stream of JSON
// objects with prompt, prompt_tokens (BOS included), tokens (the end token left
// out) and text (the continuation alone): `nibble generate --json`, once per
// prompt, in the same order. Prints a table. Tokenization must agree always;
// with --strict every new token and the text must agree too. Without it, as for
// quantized weights, the table says how far they agree. Exit status 1 on a
// difference that counts.

import {readFile} from "node:fs/promises";

// splitObjects cuts a stream of JSON objects, pretty-printed or one per line.
function splitObjects(text) {
    const objects = [];
    let start = 0, depth = 0, inString = false;
    for (let i = 0; i < text.length; i++) {
        const c = text[i];
        if (inString) {
            if (c === "\\") i++;
            else if (c === "\"") inString = false;
        } else if (c === "\"") inString = true;
        else if (c === "{" && depth++ === 0) start = i;
        else if (c === "}" && --depth === 0) objects.push(JSON.parse(text.slice(start, i + 1)));
    }
    return objects;
}

function check(object, name) {
    for (const [field, ok] of [
        ["prompt", (v) => typeof v === "string"], ["text", (v) => typeof v === "string"],
        ["prompt_tokens", Array.isArray], ["tokens", Array.isArray],
    ])
        if (!ok(object[field]))
            throw new Error(`${name}: field "${field}" is missing or of the wrong kind: ${JSON.stringify(object[field])}`);
    return object;
}

// agreement is the number of leading elements two arrays share.
function agreement(a, b) {
    let n = 0;
    while (n < a.length && n < b.length && a[n] === b[n]) n++;
    return n;
}

const same = (a, b) => a.length === b.length && agreement(a, b) === a.length;

function shorten(text, width) {
    const plain = JSON.stringify(text).slice(1, -1);
    return plain.length > width ? plain.slice(0, width - 3) + "..." : plain.padEnd(width);
}

function show(side, result, from) {
    console.log(`    ${side.padEnd(9)} ${JSON.stringify(result.tokens.slice(from, from + 8))} after ${from} tokens`);
}

const args = process.argv.slice(2);
const strict = args.includes("--strict");
const [llamaPath, nibblePath, label] = args.filter((a) => a !== "--strict");
if (label == null) {
    console.error("usage: node compare.mjs LLAMACPP.json NIBBLE.json LABEL [--strict]");
    process.exit(2);
}
const theirs = JSON.parse(await readFile(llamaPath, "utf8")).results.map((r) => check(r, llamaPath));
const ours = splitObjects(await readFile(nibblePath, "utf8")).map((r) => check(r, nibblePath));
if (ours.length !== theirs.length || theirs.length === 0)
    throw new Error(`${nibblePath} has ${ours.length} results, ${llamaPath} has ${theirs.length}`);

let failed = 0;
for (const [i, their] of theirs.entries()) {
    const our = ours[i];
    if (our.prompt !== their.prompt)
        throw new Error(`result ${i}: nibble's prompt is ${JSON.stringify(our.prompt)}, not ${JSON.stringify(their.prompt)}`);
    const prompt = same(our.prompt_tokens, their.prompt_tokens);
    const agreed = agreement(our.tokens, their.tokens);
    const tokens = same(our.tokens, their.tokens);
    // Bytes that are no UTF-8 are not text: every program shows them its own way.
    const isText = !their.text.includes("\uFFFD");
    const text = our.text === their.text;
    const bad = !prompt || (strict && !(tokens && (text || !isText)));
    failed += bad ? 1 : 0;
    const most = Math.max(our.tokens.length, their.tokens.length);
    console.log([
        label.padEnd(18), shorten(their.prompt, 32), prompt ? "prompt same  " : "PROMPT DIFFERS",
        `${agreed} of ${most} tokens`.padEnd(15), (text ? "text same" : isText ? "text differs" : "not UTF-8").padEnd(12), bad ? "FAIL" : "ok",
    ].join("  "));
    if (!prompt) {
        console.log(`    llama.cpp ${JSON.stringify(their.prompt_tokens)}`);
        console.log(`    nibble    ${JSON.stringify(our.prompt_tokens)}`);
    } else if (strict && !tokens) {
        show("llama.cpp", their, agreed);
        show("nibble", our, agreed);
    } else if (strict && !text) {
        console.log(`    llama.cpp ${JSON.stringify(their.text)}`);
        console.log(`    nibble    ${JSON.stringify(our.text)}`);
    }
}
process.exitCode = failed === 0 ? 0 : 1;
