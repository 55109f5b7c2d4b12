"""What crosses a boundary: action names, codes, requests, responses and replica records.

Nothing here decides anything.  Every type is a frozen msgspec Struct that refuses unknown fields,
so that a misspelt field is an error and not a silent default.
"""
