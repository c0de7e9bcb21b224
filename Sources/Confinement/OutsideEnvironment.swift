internal import FilePrimitives

/// Environment variables that name sockets leading outside (``OutsideSockets``), or terminals of the node. Left in place
/// they would only make programs wait for, or complain about, what is hidden.
enum OutsideEnvironment {
    /// Variables that are always taken out.
    static let names: Set<SystemString> = [
        "BUILDKIT_HOST", "CONTAINERD_ADDRESS", "CONTAINER_HOST", "DBUS_SESSION_BUS_ADDRESS", "DBUS_STARTER_ADDRESS",
        "DBUS_SYSTEM_BUS_ADDRESS", "DISPLAY", "DOCKER_HOST", "GNOME_KEYRING_CONTROL", "GPG_AGENT_INFO", "GPG_TTY",
        "INVOCATION_ID", "JOURNAL_STREAM", "LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET",
        "PIPEWIRE_REMOTE",
        "PULSE_SERVER", "SESSION_MANAGER", "SSH_AGENT_PID", "SSH_AUTH_SOCK", "SSH_TTY", "STY", "TMUX", "TMUX_PANE",
        "VSCODE_GIT_IPC_HANDLE", "VSCODE_IPC_HOOK_CLI", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "WATCHDOG_PID",
        "WATCHDOG_USEC", "XAUTHORITY", "XDG_RUNTIME_DIR",
    ]

    /// The entries of `environment` that stay.
    static func removed(from environment: [SystemString]) -> [SystemString] {
        environment.filter { !names.contains($0.variableName) }
    }
}
