-- The roles of common.sql.
CREATE ROLE proof_owner LOGIN PASSWORD 'geheim; it''s "secret" \ ';
CREATE ROLE proof_app LOGIN CONNECTION LIMIT 7 VALID UNTIL '2038-01-19 03:14:07+00';
CREATE ROLE "proof reader" NOLOGIN NOINHERIT;
CREATE ROLE "Robert""); DROP TABLE students; --" CREATEDB;
GRANT proof_owner TO proof_app WITH ADMIN OPTION;
GRANT "proof reader" TO "Robert""); DROP TABLE students; --";
ALTER ROLE proof_app SET search_path = shop, "a b; DROP SCHEMA public CASCADE; --", public;
ALTER ROLE proof_app SET work_mem = '7MB';
COMMENT ON ROLE proof_owner IS 'owns; it''s a role';
