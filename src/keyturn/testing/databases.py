"""Migrated, empty PostgreSQL databases that are used again, test after test.

Creating and migrating a database costs more than most tests.  One that a test gave back is emptied instead, and is then
as a new one: no connection, no row, every sequence at its beginning, and a change log of its own.  One whose schema
or settings a test has changed is dropped.
"""

from concurrent.futures import ThreadPoolExecutor

from keyturn.storage.migrate import migrate
from keyturn.testing.postgres import PostgresServer

_FINGERPRINT = """
SELECT md5(concat(
    (SELECT string_agg(format('%s %s %s %s', c.relname, c.relkind, c.relpersistence, c.relrowsecurity), ','
                       ORDER BY c.relname) FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace),
    (SELECT string_agg(format('%s %s %s %s', a.attrelid::regclass, a.attname, a.atttypid, a.attnotnull), ','
                       ORDER BY a.attrelid::regclass::text, a.attnum)
       FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0),
    (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname, k.conrelid::regclass::text)
       FROM pg_constraint k WHERE k.connamespace = 'public'::regnamespace),
    (SELECT string_agg(format('%s %s', t.tgname, t.tgenabled), ',' ORDER BY t.tgname, t.tgrelid)
       FROM pg_trigger t WHERE NOT t.tgisinternal),
    (SELECT string_agg(p.proname || p.prosrc, ',' ORDER BY p.proname)
       FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace),
    (SELECT string_agg(s.setconfig::text, ',') FROM pg_db_role_setting s
       JOIN pg_database d ON d.oid = s.setdatabase WHERE d.datname = current_database()),
    (SELECT string_agg(version_num, ',') FROM alembic_version)
))
"""
_EMPTY = """
DO $$
DECLARE
    found text;
    used text[] := '{}';
    any_row boolean;
BEGIN
    PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR found IN SELECT format('%I', tablename) FROM pg_tables
      WHERE schemaname = 'public' AND tablename <> 'alembic_version'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || found || ')' INTO any_row;
        IF any_row THEN
            used := used || found;
        END IF;
    END LOOP;
    IF used <> '{}' THEN
        EXECUTE 'TRUNCATE ' || array_to_string(used, ', ') || ' CASCADE';
    END IF;
    PERFORM setval(format('%I', sequencename)::regclass, start_value, false) FROM pg_sequences
      WHERE schemaname = 'public' AND last_value IS NOT NULL;
END $$
"""


class MigratedDatabases:
    """Databases of one server that are handed out and come back; for one thread."""

    def __init__(self, server: PostgresServer) -> None:
        """Hand out databases of this server; they end with it."""
        self._server = server
        self._idle: list[str] = []
        self._fingerprint = ""

    def take(self) -> str:
        """Return the URL of a migrated, empty database that nobody else has.

        What was given back is emptied only now: whoever used it may have been stopped after giving it back.
        """
        url = self._emptied() or self._server.create_database()
        with ThreadPoolExecutor(1) as thread:  # an asynchronous test has its loop on this one
            thread.submit(migrate, url).result()  # of one that was emptied, it begins the change log anew
        self._fingerprint = self._fingerprint or self._fingerprint_of(url)
        return url

    def give_back(self, url: str) -> None:
        """Let the next one who asks have this database."""
        self._idle.append(url)

    def _emptied(self) -> str | None:
        while self._idle:
            url = self._idle.pop()
            if self._fingerprint_of(url) == self._fingerprint:
                self._server.query(_EMPTY, _name_of(url))
                return url
            self._server.drop_database(url)
        return None

    def _fingerprint_of(self, url: str) -> str:
        return self._server.query(_FINGERPRINT, _name_of(url))


def _name_of(url: str) -> str:
    return url.rpartition("/")[2]
