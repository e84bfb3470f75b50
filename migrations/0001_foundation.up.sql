-- The ground everything stands on: one clock, time-ordered ids, updated_at, the audit trail.

-- One row. Read by every statement that asks for the time, so it holds little.
CREATE TABLE relayd_state (
  singleton     boolean PRIMARY KEY DEFAULT true CHECK (singleton),
  clock_offset  interval NOT NULL DEFAULT '0',  -- set by tests alone
  paused_at     timestamptz,                    -- `relayd pause everything`
  paused_reason text CHECK (length(paused_reason) <= 500),
  seal_check    bytea,                          -- opened at start: tells a wrong sealing key before any secret is needed
  CHECK ((paused_at IS NULL) = (paused_reason IS NULL))
);
INSERT INTO relayd_state DEFAULT VALUES;

-- STABLE although the clock moves: a VOLATILE function in WHERE would keep indexes from being used.
CREATE FUNCTION relayd_now() RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT clock_timestamp() + clock_offset FROM relayd_state
$$;

-- UUID version 7 (RFC 9562): 48 bits of milliseconds, then random.
CREATE FUNCTION relayd_uuid() RETURNS uuid LANGUAGE sql VOLATILE AS $$
  SELECT encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
              PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
              FROM 1 FOR 6),
      52, 1), 53, 1), 'hex')::uuid
$$;

CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := relayd_now();
  RETURN NEW;
END
$$;

-- No foreign keys: what was changed must stay readable after the thing itself is gone.
CREATE TABLE audit_logs (
  id         uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id  uuid,
  actor      text NOT NULL,
  action     text NOT NULL CHECK (action IN ('insert', 'update', 'delete', 'operate')),
  table_name text NOT NULL,
  row_id     uuid,
  row_name   text,
  before     jsonb,
  after      jsonb,
  created_at timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE INDEX audit_logs_row ON audit_logs (table_name, row_id, id);

CREATE FUNCTION relayd_actor() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT COALESCE(NULLIF(current_setting('relayd.actor', true), ''), session_user::text)
$$;

-- Arguments: the column that names the row; counters, left out; sealed columns, masked. Lists are comma-separated.
CREATE FUNCTION relayd_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  counters text[] := string_to_array(TG_ARGV[1], ',') || ARRAY['created_at', 'updated_at'];
  sealed   text[] := string_to_array(TG_ARGV[2], ',');
  old_row  jsonb  := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - counters END;
  new_row  jsonb  := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - counters END;
  living   jsonb  := COALESCE(new_row, old_row);
  changed  boolean := old_row IS DISTINCT FROM new_row;
  secret   text;
BEGIN
  IF NOT changed THEN
    RETURN NULL;
  END IF;
  FOREACH secret IN ARRAY COALESCE(sealed, '{}') LOOP
    IF old_row ->> secret IS DISTINCT FROM new_row ->> secret AND new_row ->> secret IS NOT NULL THEN
      new_row := jsonb_set(new_row, ARRAY[secret], '"(sealed, new)"');
    ELSIF new_row ->> secret IS NOT NULL THEN
      new_row := jsonb_set(new_row, ARRAY[secret], '"(sealed)"');
    END IF;
    IF old_row ->> secret IS NOT NULL THEN
      old_row := jsonb_set(old_row, ARRAY[secret], '"(sealed)"');
    END IF;
  END LOOP;
  INSERT INTO audit_logs (client_id, actor, action, table_name, row_id, row_name, before, after)
  VALUES (
    CASE WHEN TG_TABLE_NAME = 'clients' THEN (living ->> 'id')::uuid ELSE (living ->> 'client_id')::uuid END,
    relayd_actor(), lower(TG_OP), TG_TABLE_NAME, (living ->> 'id')::uuid, living ->> TG_ARGV[0], old_row, new_row);
  RETURN NULL;
END
$$;
