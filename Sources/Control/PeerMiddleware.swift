import CLinux
import Glibc
import Hummingbird
import Logging
import NIOCore
import Sandboxes

/// A request's context that knows the connection it came over.
struct ControlContext: RequestContext {
    var coreContext: CoreRequestContextStorage
    let channel: any Channel

    init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        channel = source.channel
    }
}

/// Lets requests through that come from processes in the node's own network namespace. A file's mode keeps users out;
/// it does not keep out root in a sandbox that shares the node's file system, and who can ask here can release
/// sandboxes.
///
/// Making a network namespace of its own gains a process nothing: it has to be in ours.
struct PeerMiddleware: RouterMiddleware {
    typealias Context = ControlContext

    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard try await isNeighbour(context.channel) else {
            throw APIError(
                status: .forbidden,
                code: "foreign-network",
                message: "this socket serves processes in the node's own network namespace"
            )
        }
        return try await next(request, context)
    }

    private func isNeighbour(_ channel: any Channel) async throws -> Bool {
        guard let options = channel as? any SocketOptionProvider else { return false }
        let descriptor: CInt
        do {
            descriptor = try await options.unsafeGetSocketOption(
                level: .init(rawValue: SOL_SOCKET),
                name: .init(rawValue: clinux_so_peerpidfd)
            ).get()
        } catch let error as IOError where error.errnoCode == ENOPROTOOPT {
            // Before Linux 6.5 there is only a number, which another process may have by now.
            return await Self.isNeighbour(try await options.peerCredentials().process)
        } catch {
            // The peer has ended.
            return false
        }
        defer { close(descriptor) }
        let process = clinux_process_of_pidfd(descriptor)
        guard process > 0, await Self.isNeighbour(process) else { return false }
        // Only if it lives still was the number its own.
        return clinux_process_of_pidfd(descriptor) == process
    }

    private static let own = namespace(of: "self")

    /// Where a process with other capabilities is takes CAP_SYS_PTRACE to see.
    private static func isNeighbour(_ process: Int32) async -> Bool {
        await Keeper.look { namespace(of: "\(process)").map { $0 == own } ?? false }
    }

    /// The link that names a process's network namespace.
    private static func namespace(of process: String) -> String? {
        var buffer = [UInt8](repeating: 0, count: 64)
        let count = buffer.withUnsafeMutableBytes {
            readlink("/proc/\(process)/ns/net", $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        return count > 0 ? String(decoding: buffer.prefix(count), as: UTF8.self) : nil
    }
}
