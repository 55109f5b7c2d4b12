"""Connectors that ship with Keyturn, one module per kind, registered as entry points like anybody's.

postgresql    roles with VALID UNTIL
mysql         users of MySQL and MariaDB
redis         ACL users of Redis and Valkey
aws_sts       sessions that end by themselves
statements    templates of statements
settings      how what an administrator gives is checked
threads       where drivers that block run
installed     what is installed
"""
