-- A composed address is as valid without this migration: there is nothing to undo.
SELECT 1;
