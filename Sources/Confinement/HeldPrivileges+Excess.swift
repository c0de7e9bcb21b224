extension HeldPrivileges {
    /// What the thread does, told by its name or, in a run, by its being the first.
    public func role(in process: Int32, _ mode: PrivilegeTable.Mode) -> PrivilegeTable.Role {
        switch mode {
        case .run, .rootless: thread == process ? .loop : .other
        case .serve, .sidecar:
            switch name {
            case OwnPrivileges.loopName: .loop
            case OwnPrivileges.keeperName: .keeper
            default: .other
            }
        }
    }

    /// What a thread holds, or lacks of what holds it, against its table; each as a clause. None: all is as it should be.
    public func excess(over table: PrivilegeTable, as role: PrivilegeTable.Role) -> [String] {
        let most = table.roles.contains(role) ? table.most(role) : []
        var found: [String] = []
        func compare(_ set: CapabilitySet, _ most: CapabilitySet, _ what: String) {
            let more = set.subtracting(most)
            if !more.isEmpty { found.append("\(what) \(more.names.joined(separator: ", "))") }
        }
        compare(effective, most, "holds")
        compare(permitted.subtracting(effective), most, "may take")
        compare(inheritable, [], "passes on (inheritable)")
        compare(ambient, [], "passes on (ambient)")
        // Only root gets it from there, and an ordinary user cannot change it.
        if user == 0, !hasNoNewPrivileges { compare(bounding, table.mostBounded, "could get by executing a program") }
        if !hasNoNewPrivileges { found.append("lacks no_new_privs") }
        if filters < PrivilegeTable.filters {
            found.append("is under \(filters) system call filters instead of \(PrivilegeTable.filters)")
        }
        return found
    }
}
