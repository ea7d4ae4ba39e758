"""Which rights a role lacks for taking backups, as the GRANT statements that give them."""

from __future__ import annotations

from pgkeep.pg.session import Session, as_text

# Superusers' by default (src/backend/catalog/system_functions.sql), under their names before and since 15.
_FUNCTIONS = (
    "pg_backup_start", "pg_backup_stop", "pg_start_backup", "pg_stop_backup", "pg_switch_wal",
    "pg_create_restore_point",
)  # fmt: skip
_LACKING = """
SELECT oid::regprocedure::text
  FROM pg_proc
 WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%s)
   AND NOT has_function_privilege(oid, 'EXECUTE')
   AND NOT (proname IN ('pg_start_backup', 'pg_stop_backup') AND pronargs = 0)
 ORDER BY 1
"""


def missing_grants(conninfo: str, application_name: str) -> tuple[str, ...]:
    """GRANT statements for the connection's role; none for a superuser.  Fault 'postgres-unreachable'."""
    with Session.open(conninfo, application_name) as session:
        role = as_text(session.value("SELECT quote_ident(current_user)"))
        lacking = [as_text(row[0]) for row in session.rows(_LACKING, (list(_FUNCTIONS),))]
        if not session.value("SELECT pg_has_role('pg_read_all_settings', 'USAGE')"):
            return (f"GRANT pg_read_all_settings TO {role};", *_grants(lacking, role))
        return tuple(_grants(lacking, role))


def _grants(functions: list[str], role: str) -> list[str]:
    return [f"GRANT EXECUTE ON FUNCTION {', '.join(functions)} TO {role};"] if functions else []
