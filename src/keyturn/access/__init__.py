"""Access: who may do what, and the one door through which everything is done.

    principal (user | service | agent) --member of--> role
    grant = principal or role + actions + resource pattern + conditions (environment, CIDR, time); empty means deny
    a management token's rights = its own scopes AND its principal's grants

An operation enters through `Door`: the caller is authenticated and authorised against the database inside the
transaction that does the work, never from a replica.  A denial of a known principal is itself an audit leaf.
A resource the caller may not know about answers exactly like one that does not exist.

Resource names, matched with `keyturn.kernel.match`:

    workspace/<name>                       principal/<id>      role/<name>      grant/<id>
    keyspace/<keyspace name>               key/<keyspace name>/<key id>
    plan/<name>                            owner/<name>, written as `owners` says
    audit/log                              node/<id>
    webhook/<name>
    secret/<environment>/<path>            `.` and `:` of a path are written as `keyturn.vault.paths` says
    guard/<id>                             approval/<id>        wrap/<id>
    login_method/<name>                    login_role/<method>/<role>           login_token/<id>
    credential_source/<name>               credential_role/<source>/<role>      lease/<source>/<role>/<id>
    workspace_key/<id>
    finding/<id>, finding/report, finding/match
    leak_policy/<name>                     leak_intake/<name>   decoy/<name>
    ~instance/workspace/<name>             what concerns the whole installation; `~` is matched by no wildcard
    ~instance/root_key/<id>                ~instance/credential_source/machine

Management tokens are keys in the workspace's keyspace `~system`, which no wildcard matches either; the actions on
them (`token.issue`, …) are authorised on `principal/<id>`, whose tokens they are.

    rules         may, may_know, explain, attenuates, may_issue_token: what is decided, and why
    door          where it is asked, inside the transaction, and put on record
    authorities   whose a token is, by its tag: management or login
    caller        the values decisions are about
    idempotency   a create or rotate that is sent twice is done once
    founding      a new workspace with its administrator; the way back in when nobody can
    workspaces, principals, roles, grants, service      the operations
    caps, paging, moments, spread, token_rights         what operations of other features share
"""
