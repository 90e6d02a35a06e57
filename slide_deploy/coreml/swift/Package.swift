// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "SlideModel",
    platforms: [.iOS("$ios"), .macOS("$macos")],
    products: [.library(name: "SlideModel", targets: ["SlideModel"])],
    targets: [
        .target(name: "SlideModel", resources: [.copy("$file")]),
        .testTarget(
            name: "SlideModelTests", dependencies: ["SlideModel"], resources: [.copy("golden.json")]),
    ]
)
