// node node.mjs onnxruntime-web|onnxruntime-node MODEL CASES.json: prints the outputs as JSON.
import {readFileSync} from "node:fs";
import {run} from "./vectors.mjs";

const [library, model, cases] = process.argv.slice(2);
const ort = await import(library);
if (library === "onnxruntime-web") ort.env.wasm.numThreads = 1;
console.log(JSON.stringify(await run(ort, readFileSync(model), JSON.parse(readFileSync(cases)))));
