"""Hooks: what git runs, and how it is installed.

    pre-commit     what is staged, before it is committed
    pre-push       what a push would publish, before it leaves
    pre-receive    what a push brings, on the server, before any of it is accepted

    installation   a hook is written beside one that is there, and both run
    pushing        what a push changes, by the lines that git gives a hook
    bypass         a push that is let through, by whom and why, on record before it is accepted

A hook on a server trusts nothing that the push brings: no policy, baseline or comment of its files.
"""
