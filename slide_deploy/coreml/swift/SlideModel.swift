import CoreGraphics
import CoreML
import CoreVideo
import Foundation

/// The classifier $file: a picture goes in, the probability of each class comes out.
public final class SlideModel {
    public enum Failure: Error { case noModel, noPixels, tooSmall, noProbabilities }

    public struct Prediction {
        /// The name of the most probable class.
        public let best: String
        /// The probability of each class, by its name.
        public let probabilities: [String: Double]
    }

    static let width = $width
    static let height = $height
    private let model: MLModel

    /// Loads the package that is a resource of this module.
    public init(computeUnits: MLComputeUnits = .all) async throws {
        guard let package = Bundle.module.url(forResource: "$stem", withExtension: "mlpackage")
        else { throw Failure.noModel }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = computeUnits
        let compiled = try await MLModel.compileModel(at: package)
        model = try MLModel(contentsOf: compiled, configuration: configuration)
    }

    /// Scales and crops the picture as in training, and classifies it. The picture must be upright.
    public func predict(_ picture: CGImage) throws -> Prediction {
        try predict(try SlideModel.pixels(of: picture))
    }

    /// Classifies a picture of the model's size. The model normalises the pixels itself.
    public func predict(_ pixels: CVPixelBuffer) throws -> Prediction {
        let value = MLFeatureValue(pixelBuffer: pixels)
        let input = try MLDictionaryFeatureProvider(dictionary: ["$input": value])
        let output = try model.prediction(from: input)
        let found = output.featureValue(for: "$probabilities")?.dictionaryValue as? [String: NSNumber]
        guard let best = output.featureValue(for: "$best")?.stringValue, let found
        else { throw Failure.noProbabilities }
        return Prediction(best: best, probabilities: found.mapValues { $$0.doubleValue })
    }

    /// The size of a picture before the crop.
    static func scaled(_ width: Int, _ height: Int) -> (width: Int, height: Int) {
        $scaled
    }

    private static func half(_ number: Int) -> Int {
        Int((Double(number) / 2).rounded(.toNearestOrEven))
    }

    static func pixels(of picture: CGImage) throws -> CVPixelBuffer {
        let size = scaled(picture.width, picture.height)
        guard size.width >= width, size.height >= height else { throw Failure.tooSmall }
        // The picture's own colour space: its pixels are not converted.
        let own = picture.colorSpace.flatMap { $$0.model == .rgb ? $$0 : nil }
        let space = own ?? CGColorSpaceCreateDeviceRGB()
        let order = CGBitmapInfo.byteOrder32Little.rawValue | CGImageAlphaInfo.noneSkipFirst.rawValue
        return try buffer { memory, bytesPerRow in
            let context = CGContext(
                data: memory, width: width, height: height, bitsPerComponent: 8,
                bytesPerRow: bytesPerRow, space: space, bitmapInfo: order)
            guard let context else { throw Failure.noPixels }
            let left = half(size.width - width)
            let below = size.height - height - half(size.height - height)
            context.setFillColor(red: 1, green: 1, blue: 1, alpha: 1)  // behind transparent pixels
            context.fill(CGRect(x: 0, y: 0, width: width, height: height))
            context.interpolationQuality = .high
            context.draw(
                picture, in: CGRect(x: -left, y: -below, width: size.width, height: size.height))
        }
    }

    /// A buffer of the model's size, whose memory (BGRA) and bytes per row `fill` gets.
    static func buffer(
        _ fill: (UnsafeMutableRawPointer, Int) throws -> Void
    ) throws -> CVPixelBuffer {
        var made: CVPixelBuffer?
        CVPixelBufferCreate(nil, width, height, kCVPixelFormatType_32BGRA, nil, &made)
        guard let made else { throw Failure.noPixels }
        CVPixelBufferLockBaseAddress(made, [])
        defer { CVPixelBufferUnlockBaseAddress(made, []) }
        guard let memory = CVPixelBufferGetBaseAddress(made) else { throw Failure.noPixels }
        try fill(memory, CVPixelBufferGetBytesPerRow(made))
        return made
    }
}
