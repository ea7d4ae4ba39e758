-- What PostgreSQL 18 added.
SET search_path = shop;
CREATE TABLE virtual (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c int GENERATED ALWAYS AS (a + 1) STORED);
INSERT INTO virtual (a) SELECT generate_series(1, 10);
CREATE TABLE temporal (
    id int, during daterange, PRIMARY KEY (id, during WITHOUT OVERLAPS),
    CONSTRAINT "named; not null" NOT NULL id
);
CREATE TABLE temporal_child (
    id int, parent int, during daterange,
    CONSTRAINT fk FOREIGN KEY (parent, PERIOD during) REFERENCES temporal (id, PERIOD during)
);
INSERT INTO temporal VALUES (1, '[2026-01-01,2026-12-31)');
INSERT INTO temporal_child VALUES (1, 1, '[2026-02-01,2026-03-01)');
CREATE TABLE unenforced (a int CONSTRAINT not_enforced CHECK (a > 0) NOT ENFORCED);
INSERT INTO unenforced VALUES (-1);
CREATE TABLE later_not_null (a int);
INSERT INTO later_not_null VALUES (NULL);
ALTER TABLE later_not_null ADD CONSTRAINT lnn NOT NULL a NOT VALID;
CREATE PUBLICATION generated FOR TABLE virtual WITH (publish_generated_columns = stored);
CREATE COLLATION ext.pg_c_copy (provider = builtin, locale = 'C.UTF-8');
