"""Everything that speaks to PostgreSQL: its server, its files, its programs.  Knows no repository."""
