-- Which upstream mail goes through: lists with failover or weights, routes, breakers. The unit stays the lane: it knows
-- where its mail goes now, so that the claim needs to know nothing of all this.

-- What DNS says of those that mail leaves through, where the provider or the host does not tell.
ALTER TABLE email_configurations
  ADD COLUMN spf_include text CHECK (length(spf_include) BETWEEN 1 AND 253);  -- the domain that its senders' SPF includes

-- A mailbox's upstreams where there are several, the first of them email_mailboxes.upstream_id. Weights or none.
CREATE TABLE mailbox_upstreams (
  id           uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id    uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  mailbox_id   uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  upstream_id  uuid NOT NULL REFERENCES email_configurations,
  position     integer NOT NULL CHECK (position >= 0),
  weight       integer CHECK (weight BETWEEN 1 AND 1000000),  -- NULL: in order, each when those before it cannot
  may_misalign boolean NOT NULL DEFAULT false,                -- takes over whatever DNS says of it
  created_at   timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at   timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (mailbox_id, upstream_id)
);
CREATE INDEX mailbox_upstreams_upstream ON mailbox_upstreams (upstream_id);
CREATE INDEX mailbox_upstreams_client ON mailbox_upstreams (client_id);
CREATE TRIGGER mailbox_upstreams_updated_at BEFORE UPDATE ON mailbox_upstreams
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mailbox_upstreams_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON mailbox_upstreams
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('mailbox_id', '', '');

-- Mail that goes another way than its mailbox's list says. Conditions that are NULL match all; client_id NULL: of all.
CREATE TABLE mail_routes (
  id               uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id        uuid REFERENCES clients ON DELETE CASCADE,
  name             text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  mailbox_id       uuid REFERENCES email_mailboxes ON DELETE CASCADE,
  recipient_domain text CHECK (length(recipient_domain) BETWEEN 1 AND 255),  -- example.com, or *.example.com
  header_from      text CHECK (length(header_from) BETWEEN 1 AND 254),       -- an address or a domain
  position         integer NOT NULL CHECK (position >= 0),
  deleted_at       timestamptz,
  created_at       timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at       timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK (mailbox_id IS NOT NULL OR recipient_domain IS NOT NULL OR header_from IS NOT NULL)
);
CREATE UNIQUE INDEX mail_routes_name ON mail_routes (name) WHERE deleted_at IS NULL;
CREATE INDEX mail_routes_client ON mail_routes (client_id);
CREATE INDEX mail_routes_mailbox ON mail_routes (mailbox_id);
CREATE TABLE mail_route_upstreams (
  id           uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id    uuid REFERENCES clients ON DELETE CASCADE,
  route_id     uuid NOT NULL REFERENCES mail_routes ON DELETE CASCADE,
  upstream_id  uuid NOT NULL REFERENCES email_configurations,
  position     integer NOT NULL CHECK (position >= 0),
  weight       integer CHECK (weight BETWEEN 1 AND 1000000),
  may_misalign boolean NOT NULL DEFAULT false,
  created_at   timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at   timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (route_id, upstream_id)
);
CREATE INDEX mail_route_upstreams_upstream ON mail_route_upstreams (upstream_id);
CREATE INDEX mail_route_upstreams_client ON mail_route_upstreams (client_id);
CREATE TRIGGER mail_routes_updated_at BEFORE UPDATE ON mail_routes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mail_route_upstreams_updated_at BEFORE UPDATE ON mail_route_upstreams
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mail_routes_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON mail_routes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', '', '');
CREATE TRIGGER mail_route_upstreams_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON mail_route_upstreams
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('route_id', '', '');

-- Whether an upstream is used at all, the same for all workers. No row: it is, and nothing has failed.
CREATE TABLE upstream_breakers (
  upstream_id     uuid PRIMARY KEY REFERENCES email_configurations ON DELETE CASCADE,
  client_id       uuid REFERENCES clients ON DELETE CASCADE,
  state           text NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open')),
  reason          text CHECK (length(reason) <= 1000),
  opened_at       timestamptz,
  retry_at        timestamptz,                   -- from then on one message may try; infinity: when somebody closes it
  failed_probes   integer NOT NULL DEFAULT 0,    -- in a row
  probing_by      text,                          -- the claim whose message tries
  probing_until   timestamptz,                   -- past it, another may
  -- What came of the latest attempts; those before them fade away.
  counted_at      timestamptz NOT NULL DEFAULT relayd_now(),
  attempts        double precision NOT NULL DEFAULT 0,
  failures        double precision NOT NULL DEFAULT 0,
  created_at      timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at      timestamptz NOT NULL DEFAULT relayd_now(),
  CHECK ((state = 'closed') = (opened_at IS NULL)),
  CHECK ((state = 'closed') = (retry_at IS NULL)),
  CHECK ((state = 'half_open') = (probing_by IS NOT NULL)),
  CHECK ((state = 'half_open') = (probing_until IS NOT NULL))
) WITH (fillfactor = 50);
CREATE INDEX upstream_breakers_client ON upstream_breakers (client_id);
CREATE TRIGGER upstream_breakers_updated_at BEFORE UPDATE ON upstream_breakers
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- Whether receivers would take mail of a domain for its own if it came through that upstream, as far as DNS tells.
CREATE TABLE upstream_alignments (
  domain_id   uuid NOT NULL REFERENCES email_domains ON DELETE CASCADE,
  upstream_id uuid NOT NULL REFERENCES email_configurations ON DELETE CASCADE,
  client_id   uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  is_aligned  boolean,                                  -- NULL: DNS has never answered
  why         text NOT NULL CHECK (length(why) <= 1000),
  checked_at  timestamptz NOT NULL,                     -- the last try, answered or not
  created_at  timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at  timestamptz NOT NULL DEFAULT relayd_now(),
  PRIMARY KEY (domain_id, upstream_id)
);
CREATE INDEX upstream_alignments_upstream ON upstream_alignments (upstream_id);
CREATE INDEX upstream_alignments_client ON upstream_alignments (client_id);
CREATE TRIGGER upstream_alignments_updated_at BEFORE UPDATE ON upstream_alignments
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

-- A lane is now of a mailbox, a class, a route (NULL: the mailbox's own list) and a share (NULL: what no other lane
-- takes). A share is an upstream of a weighted list other than its first. A mailbox's home lanes, one a class, have
-- neither; the others are made when first needed and stay. `preferred_id` is where its mail goes when all is well.
ALTER TABLE mailbox_lanes
  ADD COLUMN route_id     uuid,
  ADD COLUMN share_id     uuid,
  ADD COLUMN preferred_id uuid,
  ADD COLUMN is_home      boolean GENERATED ALWAYS AS (route_id IS NULL AND share_id IS NULL) STORED,
  DROP CONSTRAINT mailbox_lanes_mailbox_id_class_key,
  ADD CONSTRAINT mailbox_lanes_mailbox_id_class_key UNIQUE NULLS NOT DISTINCT (mailbox_id, class, route_id, share_id);
UPDATE mailbox_lanes SET preferred_id = upstream_id;
ALTER TABLE mailbox_lanes ALTER COLUMN preferred_id SET NOT NULL;
CREATE INDEX mailbox_lanes_route ON mailbox_lanes (route_id) WHERE route_id IS NOT NULL;
-- Lanes that are not where they would be: those that a probe may be taken from. Empty when all is well.
CREATE INDEX mailbox_lanes_away ON mailbox_lanes (preferred_id, due_at) WHERE preferred_id <> upstream_id;

-- Deferred since its upstream failed, and for nothing else: goes at once when there is a way again. NULL is no, and takes
-- no room: the queue's rows are to leave room for their next version on their page.
ALTER TABLE email_queue ADD COLUMN upstream_failed boolean CHECK (upstream_failed);
CREATE INDEX email_queue_upstream_failed ON email_queue (upstream_id, id) WHERE upstream_failed AND status = 'queued';

-- When routes or lists were last changed, and when the last walk over the queue began that followed them.
ALTER TABLE relayd_state
  ADD COLUMN routes_changed_at timestamptz NOT NULL DEFAULT '-infinity',
  ADD COLUMN rerouted_at       timestamptz NOT NULL DEFAULT '-infinity';

-- Each lane's upstreams in the order in which it would use them. A route that is gone leaves its lanes to the mailbox's
-- list, so that nothing that waits in them is stranded.
CREATE FUNCTION relayd_ways(lane_ids bigint[])
RETURNS TABLE (lane_id bigint, upstream_id uuid, place bigint, is_usable boolean, is_allowed boolean)
LANGUAGE sql STABLE AS $$
  SELECT l.id, w.upstream_id,
         row_number() OVER (PARTITION BY l.id
                            ORDER BY COALESCE(w.upstream_id = l.share_id AND w.weight IS NOT NULL, false) DESC, w.position),
         u.is_active AND u.deleted_at IS NULL AND COALESCE(k.state, 'closed') = 'closed',
         w.may_misalign OR COALESCE(a.is_aligned, false)
    FROM mailbox_lanes l
    JOIN email_mailboxes m ON m.id = l.mailbox_id
    LEFT JOIN mail_routes r ON r.id = l.route_id AND r.deleted_at IS NULL
    CROSS JOIN LATERAL (
      SELECT x.upstream_id, x.position, x.weight, x.may_misalign FROM mail_route_upstreams x WHERE x.route_id = r.id
      UNION ALL
      SELECT x.upstream_id, x.position, x.weight, x.may_misalign FROM mailbox_upstreams x
       WHERE r.id IS NULL AND x.mailbox_id = m.id
      UNION ALL
      SELECT m.upstream_id, 0, NULL, false
       WHERE r.id IS NULL AND NOT EXISTS (SELECT FROM mailbox_upstreams x WHERE x.mailbox_id = m.id)) w
    JOIN email_configurations u ON u.id = w.upstream_id
    LEFT JOIN upstream_breakers k ON k.upstream_id = u.id
    LEFT JOIN upstream_alignments a ON a.domain_id = m.domain_id AND a.upstream_id = u.id
   WHERE l.id = ANY(lane_ids)
$$;

-- Where each lane's mail goes now: its first upstream that works and may take its mail; where there is none, its first
-- one, and the mail waits.
CREATE FUNCTION relayd_steered(lane_ids bigint[])
RETURNS TABLE (lane_id bigint, preferred_id uuid, upstream_id uuid) LANGUAGE sql STABLE AS $$
  SELECT w.lane_id, (array_agg(w.upstream_id ORDER BY w.place))[1],
         COALESCE((array_agg(w.upstream_id ORDER BY w.place)
                     FILTER (WHERE w.is_usable AND (w.place = 1 OR w.is_allowed)))[1],
                  (array_agg(w.upstream_id ORDER BY w.place))[1])
    FROM relayd_ways(lane_ids) w GROUP BY w.lane_id
$$;

-- What a send of that class from that mailbox through that upstream has to fit.
CREATE FUNCTION relayd_budgets_of(of_mailbox uuid, of_class text, of_upstream uuid) RETURNS integer[]
LANGUAGE sql STABLE AS $$
  SELECT COALESCE(array_agg(b.id ORDER BY b.id), '{}')
    FROM email_mailboxes m
    CROSS JOIN LATERAL (
      SELECT unnest(ARRAY[m.id, m.domain_id, m.client_id]) AS id WHERE of_class <> 'dsn'
      UNION ALL
      SELECT g.id FROM google_workspace_quota g
       WHERE g.upstream_id = of_upstream AND (g.mailbox_id IS NULL OR g.mailbox_id = m.id)) owner
    JOIN budgets b ON b.owner_id = owner.id
   WHERE m.id = of_mailbox
$$;

-- All that lanes follow, as it stands. What has changed unblocks: the next claim looks again.
CREATE FUNCTION relayd_refresh_lanes(lane_ids bigint[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- First the locks: of two that change a mailbox and its domain at once, the second must see what the first has done.
  PERFORM FROM mailbox_lanes l WHERE l.id = ANY(lane_ids) ORDER BY l.id FOR NO KEY UPDATE OF l;
  UPDATE mailbox_lanes l
     SET client_id = m.client_id, upstream_id = w.upstream_id, preferred_id = w.preferred_id,
         held = m.status NOT IN ('warming', 'active') OR d.status NOT IN ('pending', 'active') OR c.status <> 'active',
         budget_ids = relayd_budgets_of(m.id, l.class, w.upstream_id),
         blocked_until = '-infinity', blocked_reason = NULL, blocked_by = NULL
    FROM relayd_steered(lane_ids) w, email_mailboxes m, email_domains d, clients c
   WHERE l.id = w.lane_id AND m.id = l.mailbox_id AND d.id = m.domain_id AND c.id = m.client_id;
END
$$;

CREATE OR REPLACE FUNCTION relayd_sync_lanes(mailboxes uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO mailbox_lanes (mailbox_id, class, client_id, upstream_id, preferred_id, held)
  SELECT m.id, k.class, m.client_id, m.upstream_id, m.upstream_id, true
    FROM email_mailboxes m CROSS JOIN (VALUES ('mail'), ('bulk'), ('dsn')) AS k (class)
   WHERE m.id = ANY(mailboxes)
     AND NOT EXISTS (SELECT FROM mailbox_lanes l WHERE l.mailbox_id = m.id AND l.class = k.class AND l.is_home)
   ORDER BY m.id, k.class
  ON CONFLICT (mailbox_id, class, route_id, share_id) DO NOTHING;
  PERFORM relayd_refresh_lanes(ARRAY(SELECT l.id FROM mailbox_lanes l WHERE l.mailbox_id = ANY(mailboxes) ORDER BY l.id));
END
$$;

-- Moves those of these lanes that are not where they should be now; returns them. The others stay as they are, blocked
-- or not.
CREATE FUNCTION relayd_steer_lanes(lane_ids bigint[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
  astray bigint[] := ARRAY(
    SELECT l.id FROM relayd_steered(lane_ids) w JOIN mailbox_lanes l ON l.id = w.lane_id
     WHERE l.upstream_id <> w.upstream_id OR l.preferred_id <> w.preferred_id ORDER BY l.id);
BEGIN
  IF cardinality(astray) > 0 THEN
    PERFORM relayd_refresh_lanes(astray);
  END IF;
  RETURN astray;
END
$$;

-- Lanes that have this upstream among theirs.
CREATE FUNCTION relayd_lanes_of_upstream(of_upstream uuid) RETURNS bigint[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY(
    SELECT l.id FROM mailbox_upstreams x JOIN mailbox_lanes l ON l.mailbox_id = x.mailbox_id
     WHERE x.upstream_id = of_upstream
    UNION
    SELECT l.id FROM mail_route_upstreams x JOIN mailbox_lanes l ON l.route_id = x.route_id
     WHERE x.upstream_id = of_upstream
    ORDER BY 1)
$$;

-- Google's facts for a mailbox that may come to send through these upstreams; see sync_mailbox_quota.
CREATE FUNCTION relayd_default_quotas(of_mailbox uuid, of_upstreams uuid[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO google_workspace_quota (client_id, upstream_id, mailbox_id, daily_limit)
  SELECT m.client_id, u.id, m.id, 2000
    FROM email_mailboxes m, email_configurations u
   WHERE m.id = of_mailbox AND m.deleted_at IS NULL
     AND u.id = ANY(of_upstreams) AND u.provider_type = 'google_workspace'
     AND NOT EXISTS (SELECT FROM google_workspace_quota g WHERE g.upstream_id = u.id AND g.mailbox_id = m.id)
   ORDER BY u.id
$$;

-- The lane of that mailbox, class, route and share, made where there is none yet.
CREATE FUNCTION relayd_lane(of_mailbox uuid, of_class text, of_route uuid, of_share uuid) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
  made bigint;
  found_id bigint;
BEGIN
  SELECT id INTO found_id FROM mailbox_lanes
   WHERE mailbox_id = of_mailbox AND class = of_class
     AND route_id IS NOT DISTINCT FROM of_route AND share_id IS NOT DISTINCT FROM of_share;
  IF found_id IS NOT NULL THEN
    RETURN found_id;
  END IF;
  -- In the order of everybody's locks.
  PERFORM FROM email_mailboxes WHERE id = of_mailbox FOR KEY SHARE;
  PERFORM relayd_default_quotas(of_mailbox, ARRAY(
    SELECT upstream_id FROM mail_route_upstreams WHERE route_id = of_route ORDER BY 1));
  INSERT INTO mailbox_lanes (mailbox_id, class, client_id, upstream_id, preferred_id, held, route_id, share_id)
  SELECT m.id, of_class, m.client_id, m.upstream_id, m.upstream_id, true, of_route, of_share
    FROM email_mailboxes m WHERE m.id = of_mailbox
  ON CONFLICT (mailbox_id, class, route_id, share_id) DO NOTHING
  RETURNING id INTO made;
  IF made IS NOT NULL THEN
    PERFORM relayd_refresh_lanes(ARRAY[made]);
    RETURN made;
  END IF;
  SELECT id INTO found_id FROM mailbox_lanes
   WHERE mailbox_id = of_mailbox AND class = of_class
     AND route_id IS NOT DISTINCT FROM of_route AND share_id IS NOT DISTINCT FROM of_share;
  RETURN found_id;
END
$$;

-- Whoever names one upstream for a mailbox has said that it has no other.
CREATE OR REPLACE FUNCTION sync_mailbox_lanes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_TABLE_NAME = 'email_mailboxes' AND TG_OP = 'UPDATE' THEN
    IF OLD.upstream_id <> NEW.upstream_id THEN
      DELETE FROM mailbox_upstreams
       WHERE mailbox_id = NEW.id
         AND NOT EXISTS (SELECT FROM mailbox_upstreams x
                          WHERE x.mailbox_id = NEW.id AND x.upstream_id = NEW.upstream_id AND x.position = 0);
    END IF;
  END IF;
  PERFORM relayd_sync_lanes(ARRAY(
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_mailboxes' AND id = NEW.id UNION ALL
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_domains' AND domain_id = NEW.id UNION ALL
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'clients' AND client_id = NEW.id));
  RETURN NULL;
END
$$;

-- Mailboxes whose mail may go through an upstream: by their list, or by a route that they have mail of.
CREATE FUNCTION relayd_senders_through(of_upstream uuid) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
  SELECT id FROM email_mailboxes WHERE upstream_id = of_upstream
  UNION
  SELECT mailbox_id FROM mailbox_upstreams WHERE upstream_id = of_upstream
  UNION
  SELECT l.mailbox_id FROM mail_route_upstreams x JOIN mailbox_lanes l ON l.route_id = x.route_id
   WHERE x.upstream_id = of_upstream
$$;

-- As before; who may send through an upstream is what the function above says.
CREATE OR REPLACE FUNCTION relayd_used_by(of_domain uuid, of_client uuid, of_upstream uuid, of_mailbox uuid)
RETURNS integer LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT COALESCE(sum(u.used), 0)::integer
      FROM (SELECT id FROM email_mailboxes WHERE domain_id = of_domain UNION
            SELECT id FROM email_mailboxes WHERE client_id = of_client UNION
            SELECT id FROM email_mailboxes WHERE id = of_mailbox UNION
            SELECT relayd_senders_through(of_upstream)) m
      JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day');
END
$$;
CREATE OR REPLACE FUNCTION relayd_first_use(
  put_kind text, put_owner uuid, of_domain uuid, of_client uuid, of_upstream uuid, of_mailbox uuid
) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM budgets WHERE owner_id = put_owner AND kind = put_kind) THEN
    RETURN 0;
  END IF;
  PERFORM FROM budgets b
    WHERE b.client_id = of_client
       OR b.owner_id IN (SELECT id FROM email_mailboxes m WHERE m.domain_id = of_domain OR m.id = of_mailbox)
       OR b.owner_id IN (SELECT relayd_senders_through(of_upstream))
    ORDER BY b.id FOR NO KEY UPDATE OF b;
  RETURN relayd_used_by(of_domain, of_client, of_upstream, of_mailbox);
END
$$;
CREATE OR REPLACE FUNCTION sync_quota_budgets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  quota google_workspace_quota;
BEGIN
  IF TG_OP = 'DELETE' THEN
    quota := OLD;
  ELSE
    quota := NEW;
  END IF;
  IF TG_OP <> 'DELETE' AND quota.daily_limit IS NOT NULL THEN
    PERFORM relayd_put_budget('provider_day', quota.client_id, quota.id, quota.limit_window, '1 day', quota.time_zone,
                              quota.daily_limit, quota.bulk_reserve_percent,
                              relayd_first_use('provider_day', quota.id, NULL, NULL,
                                               CASE WHEN quota.mailbox_id IS NULL THEN quota.upstream_id END,
                                               quota.mailbox_id));
  ELSE
    DELETE FROM budgets WHERE owner_id = quota.id AND kind = 'provider_day';
  END IF;
  IF TG_OP <> 'DELETE' AND quota.hourly_limit IS NOT NULL THEN
    PERFORM relayd_put_budget('provider_hour', quota.client_id, quota.id, quota.limit_window, '1 hour', quota.time_zone,
                              quota.hourly_limit, quota.bulk_reserve_percent, 0);
  ELSE
    DELETE FROM budgets WHERE owner_id = quota.id AND kind = 'provider_hour';
  END IF;
  PERFORM relayd_sync_lanes(ARRAY(
    SELECT id FROM relayd_senders_through(quota.upstream_id) AS t (id)
     WHERE quota.mailbox_id IS NULL OR id = quota.mailbox_id ORDER BY id));
  RETURN NULL;
END
$$;

-- A changed upstream is tried again at once; whether it may be used decides where lanes go.
CREATE FUNCTION sync_upstream_ways() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE upstream_breakers SET retry_at = relayd_now()
   WHERE upstream_id = NEW.id AND state = 'open' AND retry_at > relayd_now() AND retry_at < 'infinity';
  IF OLD.is_active IS DISTINCT FROM NEW.is_active OR OLD.deleted_at IS DISTINCT FROM NEW.deleted_at THEN
    PERFORM relayd_steer_lanes(relayd_lanes_of_upstream(NEW.id));
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER email_configurations_ways AFTER UPDATE ON email_configurations
  FOR EACH ROW EXECUTE FUNCTION sync_upstream_ways();
