// Runs an ONNX file on inputs: the same function for Node and for a page.
export async function run(ort, model, cases) {
  const session = await ort.InferenceSession.create(model);
  const outputs = [];
  for (const {name, shape, data} of cases) {
    const input = new ort.Tensor("uint8", Uint8Array.from(data), shape);
    const result = await session.run({[name]: input});
    outputs.push(Object.fromEntries(
      Object.entries(result).map(([key, value]) => [key, Array.from(value.data)]),
    ));
  }
  return outputs;
}
