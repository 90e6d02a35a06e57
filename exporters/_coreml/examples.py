"""How an application runs a Core ML package, in Swift."""

from __future__ import annotations

from slide_deploy.protocols import Example

__all__ = ["EXAMPLES"]

# Vision scales the shorter side of a picture to the model's, and crops it at the centre.
LOAD = """\
import CoreML
import Vision
let compiled = try await MLModel.compileModel(at: URL(fileURLWithPath: $path))
let model = try VNCoreMLModel(for: MLModel(contentsOf: compiled))
let request = VNCoreMLRequest(model: model)
request.imageCropAndScaleOption = .centerCrop
try VNImageRequestHandler(cgImage: picture).perform([request])
"""

PICTURE = f"""{LOAD}\
let found = request.results as? [VNCoreMLFeatureValueObservation]
let result = found?.first {{ $$0.featureName == $output }}?.featureValue.multiArrayValue"""

CLASSIFIED_PICTURE = f"""{LOAD}\
let result = request.results as? [VNClassificationObservation]  // the best class first
for one in result?.prefix(5) ?? [] {{ print(one.identifier, one.confidence) }}"""

TENSOR = """\
import CoreML
let compiled = try await MLModel.compileModel(at: URL(fileURLWithPath: $path))
let model = try MLModel(contentsOf: compiled)
let values = try MLMultiArray(shape: $shape, dataType: .float32)  // to be filled
let features = try MLDictionaryFeatureProvider(dictionary: [$input: values])
let found = try await model.prediction(from: features)
let result = found.featureValue(for: $output)?"""

EXAMPLES = (
    Example("Swift", PICTURE, takes="picture", classifies=False),
    Example("Swift", CLASSIFIED_PICTURE, takes="picture", classifies=True),
    Example("Swift", f"{TENSOR}.multiArrayValue", takes="tensor", classifies=False),
    Example("Swift", f"{TENSOR}.dictionaryValue", takes="tensor", classifies=True),
)
