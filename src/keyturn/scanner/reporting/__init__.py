"""Reporting: the same findings in the forms that others read."""
