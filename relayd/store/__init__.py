"""Everything kept in Postgres: one module an aggregate, each SQL statement a named constant."""
