"""The Vault-compatible surface, `/v1/*`: tools that speak to Vault or OpenBao work unchanged.

mount `secret`            the workspace's default environment; any other mount is the environment of that name
X-Vault-Token             a management or login token         X-Vault-Namespace    the workspace it has to be of
LIST, GET ?list=true      the same; POST and PUT are too
errors                    {"errors": ["…"]}, and 404 with metadata for a version that was deleted
"""
