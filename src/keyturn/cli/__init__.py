"""The command line: thin commands over the HTTP API, plus the few that work on the data folder itself.

    over HTTP    keys keyspaces audit workspaces principals roles grants whoami nodes login doctor
    offline      serve migrate backup restore admin-token  (they need the database and the root key)

Every command prints for people by default and one JSON document with `--json`.  No secret is ever taken from the
argument list: tokens come from `KEYTURN_TOKEN`, `KEYTURN_TOKEN_FILE` or a profile, keys from standard input or a file.

Exit codes: 0 done; 1 the answer is no (a key is not valid, tampering was found, the doctor found a fault); 2 wrong
usage; 3 the server refused the request, or what was restored may not be served yet; 4 not authenticated or not allowed;
5 the server or its database is unavailable.
"""
