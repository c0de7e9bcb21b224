import NIOSSL
import Synchronization

/// What the API shows of itself over TLS, and whom it lets in: a certificate, its key, and the authorities of clients if
/// they need certificates too. Read from files, and again when somebody says so; connections keep what they began with.
public final class TLSIdentity: Sendable {
    /// Files in PEM form.
    public struct Files: Sendable {
        /// The certificate, with those between it and its authority behind it.
        public var certificate: String
        /// The certificate's key, not encrypted.
        public var key: String
        /// The authorities that clients' certificates must come from; `nil` when clients need none.
        public var clientAuthorities: String?

        /// Files by their paths.
        public init(certificate: String, key: String, clientAuthorities: String? = nil) {
            self.certificate = certificate
            self.key = key
            self.clientAuthorities = clientAuthorities
        }
    }

    /// Why files cannot be used.
    public struct FormatError: Error, CustomStringConvertible {
        /// The file, and what is wrong with it.
        public let description: String
    }

    private let files: Files
    private let read: @Sendable (String) throws -> [UInt8]
    private let current: Mutex<NIOSSLContext>

    /// Reads the files with `read`, whose errors are thrown as they are. Throws ``FormatError`` for what they hold.
    public init(_ files: Files, read: @escaping @Sendable (String) throws -> [UInt8]) throws {
        self.files = files
        self.read = read
        current = Mutex(try Self.load(files, read))
    }

    /// Reads the files again. When they cannot be used, everything stays as it was.
    public func reload() throws {
        let context = try Self.load(files, read)
        current.withLock { $0 = context }
    }

    /// What the next connection begins with.
    var context: NIOSSLContext { current.withLock { $0 } }

    private static func load(_ files: Files, _ read: (String) throws -> [UInt8]) throws -> NIOSSLContext {
        let chain = try certificates(files.certificate, read)
        let keyBytes = try read(files.key)
        let key: NIOSSLPrivateKey
        do {
            key = try NIOSSLPrivateKey(bytes: keyBytes, format: .pem)
        } catch {
            throw FormatError(description: "\(files.key): expected a private key in PEM form, not encrypted")
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) },
            privateKey: .privateKey(key)
        )
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["http/1.1"]
        if let path = files.clientAuthorities {
            configuration.trustRoots = .certificates(try certificates(path, read))
            // Of the name in it nothing is asked: the authority is the operator's own.
            configuration.certificateVerification = .noHostnameVerification
            configuration.sendCANameList = true
        }
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            // Each by itself has been understood.
            throw FormatError(description: "\(files.key): not the key of the certificate in \(files.certificate)")
        }
    }

    private static func certificates(_ path: String, _ read: (String) throws -> [UInt8]) throws -> [NIOSSLCertificate] {
        let bytes = try read(path)
        guard let found = try? NIOSSLCertificate.fromPEMBytes(bytes), !found.isEmpty else {
            throw FormatError(description: "\(path): expected certificates in PEM form")
        }
        return found
    }
}
