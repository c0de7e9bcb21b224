import HTTPTypes
import Hummingbird

/// Answers requests for what is there with a method that it does not have (RFC 9110, section 15.5.6). To be added to a
/// router after all routes: it stands before the answer to what no route was found for, and nothing else.
struct WrongMethodMiddleware<Context: RequestContext>: RouterMiddleware {
    private let resources: [(path: [RouterPath.Element], allow: String)]

    /// A middleware that knows a router's routes.
    init(_ router: Router<Context>) {
        resources = Dictionary(grouping: router.routes, by: \.path.description).values.map { routes in
            let methods = routes.map(\.method.rawValue)
            // The router answers HEAD by itself.
            let all = methods.contains("GET") ? methods + ["HEAD"] : methods
            return (Array(routes[0].path), all.sorted().joined(separator: ", "))
        }
    }

    func handle(
        _ request: Request,
        context: Context,
        next: (Request, Context) async throws -> Response
    ) async throws -> Response {
        let components = request.uri.path.split(separator: "/")
        let matches = resources.filter { resource in
            resource.path.count == components.count && zip(resource.path, components).allSatisfy { $0 ~= $1 }
        }
        guard let resource = matches.first else { return try await next(request, context) }
        throw APIError(
            status: .methodNotAllowed,
            code: "wrong-method",
            message: "this resource has the methods \(resource.allow)",
            headers: [.allow: resource.allow]
        )
    }
}
