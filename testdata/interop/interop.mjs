// Runs a GGUF model in the real llama.cpp and prints what it made of some prompts.
//
//     node interop.mjs MODEL.gguf PROMPTS.json [ADAPTER.gguf] > llamacpp.json
//
// PROMPTS.json is {"max_tokens": N, "prompts": ["...", ...]}. Each prompt gets a
// fresh context and N tokens, greedily; an ADAPTER.gguf is put on top of the model.
// llama.cpp comes prebuilt with node-llama-cpp: nothing is built or downloaded here.
//
// Prints {"node_llama_cpp", "llama_cpp", "results": [{"prompt", "prompt_tokens",
// "tokens", "text", "stopped"}]}. prompt_tokens starts with BOS where the model
// asks for it. tokens holds the new tokens without the end token, text is what
// they add to the prompt's text, and stopped is "end" or "length".

import {readFile} from "node:fs/promises";
import {getLlama, getModuleVersion, LlamaLogLevel} from "node-llama-cpp";

const THREADS = 2;

async function load(modelPath) {
    const llama = await getLlama({
        gpu: false, build: "never", skipDownload: true, maxThreads: THREADS, logLevel: LlamaLogLevel.error,
    });
    return {llama, model: await llama.loadModel({modelPath, gpuLayers: 0, useMmap: true})};
}

async function generate(model, prompt, maxTokens, adapter) {
    const promptTokens = model.tokenize(prompt);
    if (model.tokens.shouldPrependBosToken)
        promptTokens.unshift(model.tokens.bos);

    // The key/value cache in float32 and plain attention, as in a float32 reference.
    const context = await model.createContext({
        contextSize: promptTokens.length + maxTokens + 1,
        threads: THREADS,
        flashAttention: false,
        experimentalKvCacheKeyType: "F32",
        experimentalKvCacheValueType: "F32",
        lora: adapter,
    });
    const tokens = [];
    let stopped = "length";
    const generated = context.getSequence().evaluate(promptTokens, {temperature: 0, yieldEogToken: true});
    for await (const token of generated) {
        if (model.isEogToken(token)) {
            stopped = "end";
            break;
        }
        tokens.push(token);
        if (tokens.length === maxTokens)
            break;
    }
    await context.dispose();

    const before = model.detokenize(promptTokens);
    const whole = model.detokenize([...promptTokens, ...tokens]);
    return {prompt, prompt_tokens: promptTokens, tokens, text: whole.slice(before.length), stopped};
}

const [modelPath, promptsPath, adapter] = process.argv.slice(2);
if (promptsPath == null) {
    console.error("usage: node interop.mjs MODEL.gguf PROMPTS.json [ADAPTER.gguf]");
    process.exit(2);
}
const {max_tokens: maxTokens, prompts} = JSON.parse(await readFile(promptsPath, "utf8"));
const {llama, model} = await load(modelPath);
const results = [];
for (const prompt of prompts)
    results.push(await generate(model, prompt, maxTokens, adapter));
console.log(JSON.stringify({
    node_llama_cpp: await getModuleVersion(), llama_cpp: llama.llamaCppRelease.release, results,
}, null, 1));
await model.dispose();
await llama.dispose();
