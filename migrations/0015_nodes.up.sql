-- Which sealing keys each node has: nothing is sealed anew under a key that a living node lacks.

CREATE TABLE relayd_nodes (
  id           uuid PRIMARY KEY DEFAULT relayd_uuid(),
  name         text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63),
  sealing_key  text NOT NULL CHECK (sealing_key ~ '^[0-9a-f]{8}$'),  -- the id of the key that it seals with
  opening_keys text[] NOT NULL,                                     -- and of all that it opens with
  created_at   timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at   timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK (sealing_key = ANY (opening_keys))
);
CREATE TRIGGER update_relayd_nodes_updated_at BEFORE UPDATE ON relayd_nodes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
