import CoreVideo
import XCTest

@testable import SlideModel

/// Repeats the golden vectors of the export: pictures of the model's size, and the logarithms of
/// the probabilities that the float64 model in PyTorch gives for them.
final class GoldenTests: XCTestCase {
    struct Probe: Decodable {
        let name: String
        /// Rows of pixels in RGB.
        let pixels: Data
        let logarithms: [Double]
        /// The largest difference from a logarithm.
        let limit: Double
        /// The most probable class, if rounding cannot change it.
        let best: String?
    }

    struct Golden: Decodable {
        let classes: [String]
        /// Smaller probabilities count as this one.
        let smallest: Double
        let probes: [Probe]
    }

    func golden() throws -> Golden {
        let file = try XCTUnwrap(Bundle.module.url(forResource: "golden", withExtension: "json"))
        return try JSONDecoder().decode(Golden.self, from: Data(contentsOf: file))
    }

    func picture(_ rgb: Data) throws -> CVPixelBuffer {
        XCTAssertEqual(rgb.count, 3 * SlideModel.width * SlideModel.height)
        let bytes = [UInt8](rgb)
        return try SlideModel.buffer { memory, bytesPerRow in
            for row in 0..<SlideModel.height {
                for column in 0..<SlideModel.width {
                    let source = 3 * (row * SlideModel.width + column)
                    let place = memory + row * bytesPerRow + 4 * column
                    place.storeBytes(of: bytes[source + 2], as: UInt8.self)
                    (place + 1).storeBytes(of: bytes[source + 1], as: UInt8.self)
                    (place + 2).storeBytes(of: bytes[source], as: UInt8.self)
                    (place + 3).storeBytes(of: 255, as: UInt8.self)
                }
            }
        }
    }

    /// The CPU computes in the types that the program declares.
    func testTheCPUGivesTheReference() async throws {
        let golden = try golden()
        let model = try await SlideModel(computeUnits: .cpuOnly)
        for probe in golden.probes {
            let found = try model.predict(try picture(probe.pixels)).probabilities
            XCTAssertEqual(Set(found.keys), Set(golden.classes))
            for (name, expected) in zip(golden.classes, probe.logarithms) {
                let made = log(max(found[name] ?? 0, golden.smallest))
                let what = "\(probe.name), class \(name)"
                XCTAssertEqual(made, expected, accuracy: probe.limit, what)
            }
        }
    }

    func testEveryProcessorFindsTheBestClass() async throws {
        let golden = try golden()
        let model = try await SlideModel(computeUnits: .all)
        for probe in golden.probes {
            let found = try model.predict(try picture(probe.pixels))
            if let best = probe.best { XCTAssertEqual(found.best, best, probe.name) }
        }
    }
}
