"""Roles in statements as pg_dump writes them: found by grammar, and said of others."""

from __future__ import annotations

import pytest

from pgkeep.pg.rolenames import roles_in, with_other_roles


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GRANT SELECT ON TABLE public.role TO bob;", {"bob"}),
        ("GRANT SELECT(role) ON TABLE a.b TO \"TO\";", {"TO"}),
        ("REVOKE ALL ON FUNCTION f(\"from\", text) FROM PUBLIC;\nGRANT ALL ON FUNCTION f(\"from\") TO a;", {"a"}),
        ("REVOKE GRANT OPTION FOR ALL ON SCHEMA s FROM \"a \"\"b\";", {'a "b'}),
        ("GRANT ALL ON TABLE t TO GROUP g WITH GRANT OPTION;", {"g"}),
        ("GRANT a TO b, c WITH ADMIN OPTION;", {"a", "b", "c"}),
        ("SET SESSION AUTHORIZATION x;\nGRANT ALL ON TABLE t TO y;\nRESET SESSION AUTHORIZATION;", {"x", "y"}),
        ("SET SESSION AUTHORIZATION DEFAULT;", set()),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE o IN SCHEMA s GRANT SELECT ON TABLES TO r;", {"o", "r"}),
        ("ALTER DEFAULT PRIVILEGES FOR ROLE o REVOKE ALL ON FUNCTIONS FROM PUBLIC;", {"o"}),
        ("CREATE POLICY p ON s.role FOR SELECT TO a, \"b c\" USING ((x = 'TO d'::text));", {"a", "b c"}),
        ("CREATE POLICY p ON t USING ((i > '1'::interval day to second));", set()),
        ("CREATE POLICY p ON t WITH CHECK ((i > '1'::interval day to second));", set()),
        ("CREATE USER MAPPING FOR a SERVER s OPTIONS (\"user\" 'b');", {"a"}),
        ("CREATE USER MAPPING FOR PUBLIC SERVER s;", set()),
        ("DROP USER MAPPING IF EXISTS FOR a SERVER s;", {"a"}),
        ("ALTER ROLE r IN DATABASE d SET search_path TO 'a', 'b';", {"r"}),
        ("ALTER DATABASE d OWNER TO o;", {"o"}),
        ("ALTER DATABASE d SET role TO x;", set()),
        ("CREATE TABLESPACE t OWNER o LOCATION '/x';", {"o"}),
        ("COMMENT ON DATABASE d IS 'GRANT a TO b';", set()),
        ("GRANT", set()),
        ("SET SESSION AUTHORIZATION", set()),
    ],
)  # fmt: skip
def test_by_grammar(text: str, expected: set[str]) -> None:
    assert roles_in(text) == expected
    assert with_other_roles(text, {"nobody": "x"}) == text
    renamed = with_other_roles(text, {name: f'{name}"; 2' for name in expected})
    assert roles_in(renamed) == {f'{name}"; 2' for name in expected}


def test_what_is_no_name_stays() -> None:
    text = "CREATE POLICY a ON a.a FOR SELECT TO a USING ((a = 'a'::a.a) AND (b = '\n\\connect a\n'));"
    assert with_other_roles(text, {"a": "A b"}) == (
        "CREATE POLICY a ON a.a FOR SELECT TO \"A b\" USING ((a = 'a'::a.a) AND (b = '\n\\connect a\n'));\n"
    )
