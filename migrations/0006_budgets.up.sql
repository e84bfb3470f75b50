-- Budgets: what may leave, of whom, in which window. One ledger for all that limits a send; the claim reserves in it.
-- Also classes of mail, scheduled sending, and what is needed to be fair between clients.

-- Who owns a limit says it in its own row; triggers below keep the ledger to it.
ALTER TABLE clients
  ADD COLUMN daily_send_limit     integer CHECK (daily_send_limit >= 0),  -- NULL: none
  ADD COLUMN current_daily_sends  integer NOT NULL DEFAULT 0,             -- as of the last change; see budget_usage
  ADD COLUMN limit_window         text NOT NULL DEFAULT 'calendar' CHECK (limit_window IN ('calendar', 'rolling')),
  ADD COLUMN time_zone            text NOT NULL DEFAULT 'UTC'
                                  CHECK ((timestamptz '2000-01-01 00:00+00' AT TIME ZONE time_zone) IS NOT NULL),
  -- The part of each of its limits that bulk mail may not use.
  ADD COLUMN bulk_reserve_percent integer NOT NULL DEFAULT 0 CHECK (bulk_reserve_percent BETWEEN 0 AND 100);

ALTER TABLE email_domains
  ADD COLUMN own_daily_limit     integer CHECK (own_daily_limit >= 0),  -- set by hand; NULL: follows its mailboxes
  ADD COLUMN daily_send_limit    integer DEFAULT 50,                    -- in force today; NULL: a mailbox has none
  ADD COLUMN current_daily_sends integer NOT NULL DEFAULT 0,
  ADD COLUMN limit_window        text NOT NULL DEFAULT 'calendar' CHECK (limit_window IN ('calendar', 'rolling')),
  ADD COLUMN time_zone           text NOT NULL DEFAULT 'UTC'
                                 CHECK ((timestamptz '2000-01-01 00:00+00' AT TIME ZONE time_zone) IS NOT NULL);

ALTER TABLE email_mailboxes
  ADD COLUMN limit_window text NOT NULL DEFAULT 'calendar' CHECK (limit_window IN ('calendar', 'rolling')),
  ADD COLUMN is_paced     boolean NOT NULL DEFAULT false,  -- no more in an hour than the day's share
  ADD COLUMN mail_class   text NOT NULL DEFAULT 'transactional' CHECK (mail_class IN ('transactional', 'bulk'));
ALTER TABLE smtp_credentials
  ADD COLUMN mail_class           text CHECK (mail_class IN ('transactional', 'bulk')),  -- NULL: as the mailbox
  ADD COLUMN refuse_after_seconds integer CHECK (refuse_after_seconds > 0);  -- 452 for what would leave later; NULL: never

-- Mailboxes that send in each other's place: whichever has budget, the best health and the least used share.
CREATE TABLE mailbox_pools (
  id               uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id        uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  name             text NOT NULL CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
  may_rewrite_from boolean NOT NULL DEFAULT false,  -- the sending mailbox's address takes the place of header From
  deleted_at       timestamptz,
  created_at       timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at       timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE UNIQUE INDEX mailbox_pools_name ON mailbox_pools (client_id, name) WHERE deleted_at IS NULL;
CREATE TABLE mailbox_pool_members (
  id         uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id  uuid NOT NULL REFERENCES clients ON DELETE CASCADE,
  pool_id    uuid NOT NULL REFERENCES mailbox_pools ON DELETE CASCADE,
  mailbox_id uuid NOT NULL REFERENCES email_mailboxes ON DELETE CASCADE,
  created_at timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at timestamptz NOT NULL DEFAULT relayd_now(),
  UNIQUE (pool_id, mailbox_id)
);
CREATE INDEX mailbox_pool_members_mailbox ON mailbox_pool_members (mailbox_id);
ALTER TABLE smtp_credentials ADD COLUMN pool_id uuid REFERENCES mailbox_pools ON DELETE SET NULL;
ALTER TABLE email_domains ADD COLUMN default_pool_id uuid REFERENCES mailbox_pools ON DELETE SET NULL;
ALTER TABLE email_queue ADD COLUMN pool_id uuid;  -- any member of it may send this entry
CREATE INDEX email_queue_pool ON email_queue (pool_id, mailbox_id) WHERE pool_id IS NOT NULL AND status = 'queued';
ALTER TABLE messages ADD COLUMN sign_at_attempt boolean NOT NULL DEFAULT false;  -- stored unsigned: From is not known yet
CREATE TRIGGER mailbox_pools_updated_at BEFORE UPDATE ON mailbox_pools
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mailbox_pool_members_updated_at BEFORE UPDATE ON mailbox_pool_members
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER mailbox_pools_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON mailbox_pools
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', '', '');
CREATE TRIGGER mailbox_pool_members_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON mailbox_pool_members
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('mailbox_id', '', '');

-- What a provider allows an account of it. mailbox_id NULL: the upstream as a whole.
CREATE TABLE google_workspace_quota (
  id                   uuid PRIMARY KEY DEFAULT relayd_uuid(),
  client_id            uuid REFERENCES clients ON DELETE CASCADE,  -- NULL: an upstream that all share
  upstream_id          uuid NOT NULL REFERENCES email_configurations ON DELETE CASCADE,
  mailbox_id           uuid REFERENCES email_mailboxes ON DELETE CASCADE,
  daily_limit          integer CHECK (daily_limit >= 0),           -- NULL: none
  daily_used           integer NOT NULL DEFAULT 0,
  daily_reset_at       timestamptz,
  hourly_limit         integer CHECK (hourly_limit >= 0),
  hourly_used          integer NOT NULL DEFAULT 0,
  hourly_reset_at      timestamptz,
  is_exceeded          boolean NOT NULL DEFAULT false,
  exceeded_at          timestamptz,
  limit_window         text NOT NULL DEFAULT 'rolling' CHECK (limit_window IN ('calendar', 'rolling')),
  time_zone            text NOT NULL DEFAULT 'UTC'
                       CHECK ((timestamptz '2000-01-01 00:00+00' AT TIME ZONE time_zone) IS NOT NULL),
  bulk_reserve_percent integer NOT NULL DEFAULT 0 CHECK (bulk_reserve_percent BETWEEN 0 AND 100),
  created_at           timestamptz NOT NULL DEFAULT relayd_now(),
  updated_at           timestamptz NOT NULL DEFAULT relayd_now()
);
CREATE UNIQUE INDEX google_workspace_quota_of
  ON google_workspace_quota (upstream_id, COALESCE(mailbox_id, '00000000-0000-0000-0000-000000000000'));
CREATE INDEX google_workspace_quota_mailbox ON google_workspace_quota (mailbox_id);
CREATE INDEX google_workspace_quota_client ON google_workspace_quota (client_id);
CREATE TRIGGER google_workspace_quota_updated_at
  BEFORE UPDATE OF daily_limit, hourly_limit, limit_window, time_zone, bulk_reserve_percent ON google_workspace_quota
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
CREATE TRIGGER google_workspace_quota_audit_trigger
  AFTER INSERT OR DELETE OR UPDATE OF daily_limit, hourly_limit, limit_window, time_zone, bulk_reserve_percent
  ON google_workspace_quota FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'upstream_id', 'daily_used,daily_reset_at,hourly_used,hourly_reset_at,is_exceeded,exceeded_at', '');

-- The ledger. Units are recipients. A calendar window begins anew at turns_at; a rolling one frees each unit by itself.
CREATE TABLE budgets (
  id           integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind         text NOT NULL CHECK (kind IN ('mailbox_day', 'mailbox_hour', 'domain_day', 'client_day', 'provider_day',
                                             'provider_hour')),
  client_id    uuid REFERENCES clients ON DELETE CASCADE,
  owner_id     uuid NOT NULL,       -- the row that says the limit: mailbox, domain, client or quota
  is_rolling   boolean NOT NULL,
  span         interval NOT NULL CHECK (span IN ('1 day', '1 hour')),
  time_zone    text NOT NULL,
  unit_limit   integer CHECK (unit_limit >= 0),  -- NULL: counted and not limited
  bulk_limit   integer,             -- the same for bulk mail; never above unit_limit
  -- Sent, in flight and in doubt. Stale from turns_at on; read budget_usage, which is right at any instant.
  units_used   integer NOT NULL DEFAULT 0 CHECK (units_used >= 0),
  units_before integer NOT NULL DEFAULT 0,            -- calendar: of the window before this one
  began_at     timestamptz NOT NULL DEFAULT '-infinity',  -- rolling: what was freed up to then is taken off
  turns_at     timestamptz NOT NULL DEFAULT '-infinity',  -- rolling: when the next units are freed
  UNIQUE (owner_id, kind)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX budgets_client ON budgets (client_id);

-- Rolling windows: units by the minute in which they are freed, never too early.
CREATE TABLE budget_releases (
  budget_id integer NOT NULL REFERENCES budgets ON DELETE CASCADE,
  frees_at  timestamptz NOT NULL,
  units     integer NOT NULL,
  PRIMARY KEY (budget_id, frees_at)
) WITH (fillfactor = 50);

-- When that date begins there. A midnight that comes twice, as clocks go back over it, is the first of the two; where
-- clocks go forward over it, the day begins with its first moment.
CREATE FUNCTION relayd_day_start(day timestamp, zone text) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN (day AT TIME ZONE zone - interval '1 hour') AT TIME ZONE zone >= day
              THEN day AT TIME ZONE zone - interval '1 hour' ELSE day AT TIME ZONE zone END
$$;
-- The calendar window of that zone which holds that moment. Hours are the same everywhere.
CREATE FUNCTION relayd_window_start(moment timestamptz, span interval, zone text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN span = '1 hour' THEN date_trunc('hour', moment, 'UTC')
              ELSE relayd_day_start(date_trunc('day', moment AT TIME ZONE zone), zone) END
$$;
CREATE FUNCTION relayd_window_end(moment timestamptz, span interval, zone text) RETURNS timestamptz
LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN span = '1 hour' THEN date_trunc('hour', moment, 'UTC') + span
              ELSE relayd_day_start(date_trunc('day', moment AT TIME ZONE zone) + span, zone) END
$$;

-- An entry's reservations while it is in flight: the budgets that it was counted in when it was claimed.
ALTER TABLE email_queue ADD COLUMN reserved_budgets integer[];
CREATE INDEX email_queue_scheduled ON email_queue (next_attempt_at) WHERE pending_reason = 'scheduled';

-- Lanes: one more class, whose they are, and which budgets a send from them has to fit.
ALTER TABLE mailbox_lanes
  ADD COLUMN client_id  uuid,
  ADD COLUMN budget_ids integer[] NOT NULL DEFAULT '{}',
  ADD COLUMN blocked_by integer,                          -- the budget that says not before
  DROP CONSTRAINT mailbox_lanes_class_check,
  ADD CONSTRAINT mailbox_lanes_class_check CHECK (class IN ('mail', 'bulk', 'dsn'));
CREATE INDEX mailbox_lanes_blocked ON mailbox_lanes (blocked_by, due_at) WHERE blocked_by IS NOT NULL;

-- What there is already.
INSERT INTO budgets (kind, client_id, owner_id, is_rolling, span, time_zone, unit_limit, bulk_limit, units_used,
                     began_at, turns_at)
SELECT 'mailbox_day', client_id, id, false, '1 day', time_zone, daily_send_limit, daily_send_limit, current_daily_sends,
       '-infinity', window_ends_at
  FROM email_mailboxes WHERE deleted_at IS NULL ORDER BY id;
UPDATE email_queue q SET reserved_budgets = ARRAY[b.id]
  FROM budgets b WHERE q.status = 'sending' AND q.reserved_until IS NOT NULL AND b.owner_id = q.mailbox_id;
ALTER TABLE email_queue DROP COLUMN reserved_until;

-- Says a budget's terms. What was sent before there was one counts too, as far as the mailboxes' own counts tell
-- (`used`). With another zone the window that is open lasts to the first turn there after its own, and holds what may
-- have been sent before it in the day that is open there, so that neither zone's day holds more than the limit; another
-- kind of window takes over all that counts.
CREATE FUNCTION relayd_put_budget(
  put_kind text, put_client uuid, put_owner uuid, put_window text, put_span interval, put_zone text, put_limit integer,
  reserve_percent integer, used integer
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  bulk    integer := put_limit - ceil(put_limit * (reserve_percent / 100.0))::integer;
  rolling boolean := put_window = 'rolling';
  moment  timestamptz := relayd_now();
  later   timestamptz := date_trunc('minute', moment) + interval '1 minute' + put_span;
  begins  timestamptz := relayd_window_start(moment, put_span, put_zone);
  known   budgets;
BEGIN
  SELECT * INTO known FROM budgets WHERE owner_id = put_owner AND kind = put_kind FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    INSERT INTO budgets (kind, client_id, owner_id, is_rolling, span, time_zone, unit_limit, bulk_limit, units_used,
                         began_at, turns_at)
    VALUES (put_kind, put_client, put_owner, rolling, put_span, put_zone, put_limit, bulk, used,
            CASE WHEN rolling THEN moment ELSE relayd_window_start(moment, put_span, put_zone) END,
            CASE WHEN NOT rolling THEN relayd_window_end(moment, put_span, put_zone)
                 WHEN used > 0 THEN later ELSE 'infinity' END)
    RETURNING * INTO known;
    IF rolling AND used > 0 THEN
      INSERT INTO budget_releases VALUES (known.id, later, used);
    END IF;
    RETURN;
  END IF;
  IF rolling AND NOT known.is_rolling THEN
    -- All that counts now is freed together, a day from now. What is in flight is counted by its own reply.
    INSERT INTO budget_releases
    SELECT known.id, later, units FROM (
      SELECT known.units_used - count(*) AS units FROM email_queue
       WHERE status = 'sending' AND known.id = ANY(reserved_budgets)) kept
     WHERE units > 0 AND known.turns_at > moment;
    UPDATE budgets
       SET is_rolling = true, began_at = moment, units_before = 0, turns_at = later,
           units_used = (SELECT count(*) FROM email_queue WHERE status = 'sending' AND known.id = ANY(reserved_budgets))
                        + COALESCE((SELECT sum(units) FROM budget_releases r WHERE r.budget_id = known.id), 0)
     WHERE id = known.id;
  ELSIF known.is_rolling AND NOT rolling THEN
    DELETE FROM budget_releases WHERE budget_id = known.id;
    UPDATE budgets
       SET is_rolling = false, began_at = relayd_window_start(moment, put_span, put_zone),
           turns_at = relayd_window_end(moment, put_span, put_zone)
     WHERE id = known.id;
  END IF;
  UPDATE budgets
     SET unit_limit = put_limit, bulk_limit = bulk
   WHERE id = known.id;
  UPDATE budgets
     SET time_zone = put_zone,
         units_used = units_used + CASE WHEN began_at > begins AND turns_at > moment THEN units_before ELSE 0 END,
         units_before = CASE WHEN began_at > begins AND turns_at > moment THEN 0 ELSE units_before END,
         began_at = CASE WHEN turns_at > moment THEN LEAST(began_at, begins) ELSE began_at END,
         turns_at = CASE WHEN turns_at <= begins THEN turns_at
                         ELSE relayd_window_end(GREATEST(turns_at - interval '1 microsecond', moment), put_span, put_zone)
                    END
   WHERE id = known.id AND NOT is_rolling AND time_zone <> put_zone;
  UPDATE budgets SET time_zone = put_zone WHERE id = known.id AND is_rolling AND time_zone <> put_zone;
END
$$;

-- Lanes follow what decides whether, where and in which budgets they run. What has changed unblocks: the next claim
-- looks again. $1 mailboxes.
CREATE FUNCTION relayd_sync_lanes(mailboxes uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  -- First the locks: of two that change a mailbox and its domain at once, the second must see what the first has done.
  PERFORM FROM mailbox_lanes l WHERE l.mailbox_id = ANY(mailboxes) ORDER BY l.id FOR NO KEY UPDATE OF l;
  INSERT INTO mailbox_lanes AS lane (mailbox_id, class, client_id, upstream_id, held, budget_ids)
  SELECT m.id, k.class, m.client_id, m.upstream_id,
         m.status NOT IN ('warming', 'active') OR d.status NOT IN ('pending', 'active') OR c.status <> 'active',
         ARRAY(SELECT b.id FROM budgets b
                WHERE (k.class <> 'dsn' AND b.owner_id IN (m.id, m.domain_id, m.client_id))
                   OR b.owner_id IN (SELECT g.id FROM google_workspace_quota g
                                      WHERE g.upstream_id = m.upstream_id
                                        AND (g.mailbox_id IS NULL OR g.mailbox_id = m.id))
                ORDER BY b.id)
    FROM email_mailboxes m
    JOIN email_domains d ON d.id = m.domain_id
    JOIN clients c ON c.id = m.client_id
    CROSS JOIN (VALUES ('mail'), ('bulk'), ('dsn')) AS k (class)
   WHERE m.id = ANY(mailboxes)
   ORDER BY m.id, k.class
  ON CONFLICT (mailbox_id, class) DO UPDATE
     SET client_id = EXCLUDED.client_id, upstream_id = EXCLUDED.upstream_id, held = EXCLUDED.held,
         budget_ids = EXCLUDED.budget_ids, blocked_until = '-infinity', blocked_reason = NULL, blocked_by = NULL;
END
$$;

CREATE OR REPLACE FUNCTION sync_mailbox_lanes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM relayd_sync_lanes(ARRAY(
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_mailboxes' AND id = NEW.id UNION ALL
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'email_domains' AND domain_id = NEW.id UNION ALL
    SELECT id FROM email_mailboxes WHERE TG_TABLE_NAME = 'clients' AND client_id = NEW.id));
  RETURN NULL;
END
$$;

-- What mailboxes have used in their present windows: what a new budget over them begins with.
CREATE FUNCTION relayd_used_by(of_domain uuid, of_client uuid, of_upstream uuid, of_mailbox uuid) RETURNS integer
LANGUAGE sql STABLE AS $$
  SELECT COALESCE(sum(b.units_used), 0)::integer
    FROM email_mailboxes m
    JOIN budgets b ON b.owner_id = m.id AND b.kind = 'mailbox_day' AND (b.is_rolling OR b.turns_at > relayd_now())
   WHERE m.domain_id = of_domain OR m.client_id = of_client OR m.upstream_id = of_upstream OR m.id = of_mailbox
$$;

-- What a domain may send today where nobody has said so by hand.
CREATE FUNCTION relayd_domain_limit(of_domain uuid) RETURNS integer LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN bool_or(daily_send_limit IS NULL) THEN NULL
              ELSE LEAST(GREATEST(50, COALESCE(sum(daily_send_limit), 0)), 2147483647) END::integer
    FROM email_mailboxes WHERE domain_id = of_domain AND deleted_at IS NULL
$$;

-- Each takes its locks in this order: the owner's row (its caller has it), the domain, budgets, lanes.
CREATE FUNCTION sync_mailbox_budgets() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  reserve integer := (SELECT bulk_reserve_percent FROM clients WHERE id = NEW.client_id);
BEGIN
  IF NEW.deleted_at IS NOT NULL THEN
    DELETE FROM budgets WHERE owner_id = NEW.id;
  ELSE
    PERFORM relayd_put_budget('mailbox_day', NEW.client_id, NEW.id, NEW.limit_window, '1 day', NEW.time_zone,
                              NEW.daily_send_limit, reserve, 0);
    IF NEW.is_paced AND NEW.daily_send_limit IS NOT NULL THEN
      PERFORM relayd_put_budget('mailbox_hour', NEW.client_id, NEW.id, 'calendar', '1 hour', NEW.time_zone,
                                ceil(NEW.daily_send_limit / 24.0)::integer, reserve, 0);
    ELSE
      DELETE FROM budgets WHERE owner_id = NEW.id AND kind = 'mailbox_hour';
    END IF;
  END IF;
  UPDATE email_domains SET daily_send_limit = relayd_domain_limit(id)
   WHERE id = NEW.domain_id AND own_daily_limit IS NULL
     AND daily_send_limit IS DISTINCT FROM relayd_domain_limit(NEW.domain_id);
  RETURN NULL;
END
$$;

-- Google's facts, where nobody says otherwise: 2,000 a user in any 24 hours.
CREATE FUNCTION sync_mailbox_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO google_workspace_quota (client_id, upstream_id, mailbox_id, daily_limit)
  SELECT NEW.client_id, u.id, NEW.id, 2000 FROM email_configurations u
   WHERE u.id = NEW.upstream_id AND u.provider_type = 'google_workspace' AND NEW.deleted_at IS NULL
     AND NOT EXISTS (SELECT FROM google_workspace_quota g WHERE g.upstream_id = u.id AND g.mailbox_id = NEW.id);
  RETURN NULL;
END
$$;

CREATE FUNCTION sync_domain_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.own_daily_limit IS NOT NULL AND NEW.deleted_at IS NULL THEN
    PERFORM relayd_put_budget('domain_day', NEW.client_id, NEW.id, NEW.limit_window, '1 day', NEW.time_zone,
                              NEW.own_daily_limit, (SELECT bulk_reserve_percent FROM clients WHERE id = NEW.client_id),
                              relayd_used_by(NEW.id, NULL, NULL, NULL));
    UPDATE email_domains SET daily_send_limit = NEW.own_daily_limit
     WHERE id = NEW.id AND daily_send_limit IS DISTINCT FROM NEW.own_daily_limit;
  ELSE
    DELETE FROM budgets WHERE owner_id = NEW.id;
    UPDATE email_domains SET current_daily_sends = 0, daily_send_limit = relayd_domain_limit(id) WHERE id = NEW.id;
  END IF;
  PERFORM relayd_sync_lanes(ARRAY(SELECT id FROM email_mailboxes WHERE domain_id = NEW.id ORDER BY id));
  RETURN NULL;
END
$$;

CREATE FUNCTION sync_client_budgets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.daily_send_limit IS NOT NULL AND NEW.deleted_at IS NULL THEN
    PERFORM relayd_put_budget('client_day', NEW.id, NEW.id, NEW.limit_window, '1 day', NEW.time_zone,
                              NEW.daily_send_limit, NEW.bulk_reserve_percent,
                              relayd_used_by(NULL, NEW.id, NULL, NULL));
  ELSE
    DELETE FROM budgets WHERE owner_id = NEW.id;
    UPDATE clients SET current_daily_sends = 0 WHERE id = NEW.id AND current_daily_sends <> 0;
  END IF;
  UPDATE budgets b SET bulk_limit = b.unit_limit - ceil(b.unit_limit * (NEW.bulk_reserve_percent / 100.0))::integer
    FROM (SELECT id FROM budgets WHERE client_id = NEW.id AND kind IN ('mailbox_day', 'mailbox_hour', 'domain_day')
           ORDER BY id FOR NO KEY UPDATE) own
   WHERE b.id = own.id AND b.unit_limit IS NOT NULL;
  PERFORM relayd_sync_lanes(ARRAY(SELECT id FROM email_mailboxes WHERE client_id = NEW.id ORDER BY id));
  RETURN NULL;
END
$$;

CREATE FUNCTION sync_quota_budgets() RETURNS trigger LANGUAGE plpgsql AS $$
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
                              CASE WHEN quota.mailbox_id IS NULL THEN relayd_used_by(NULL, NULL, quota.upstream_id, NULL)
                                   ELSE relayd_used_by(NULL, NULL, NULL, quota.mailbox_id) END);
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
    SELECT id FROM email_mailboxes
     WHERE upstream_id = quota.upstream_id AND (quota.mailbox_id IS NULL OR id = quota.mailbox_id) ORDER BY id));
  RETURN NULL;
END
$$;

-- Triggers of one table fire in the order of their names: budgets, lanes, quota. The quota's own trigger does its lanes.
CREATE TRIGGER email_mailboxes_budgets
  AFTER INSERT OR UPDATE OF daily_send_limit, time_zone, limit_window, is_paced, deleted_at ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION sync_mailbox_budgets();
DROP TRIGGER email_mailboxes_lanes ON email_mailboxes;
CREATE TRIGGER email_mailboxes_lanes
  AFTER INSERT OR UPDATE OF upstream_id, status, daily_send_limit, time_zone, limit_window, is_paced, deleted_at
  ON email_mailboxes FOR EACH ROW EXECUTE FUNCTION sync_mailbox_lanes();
CREATE TRIGGER email_mailboxes_quota
  AFTER INSERT OR UPDATE OF upstream_id ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION sync_mailbox_quota();
CREATE TRIGGER email_domains_budget
  AFTER INSERT OR UPDATE OF own_daily_limit, limit_window, time_zone, deleted_at ON email_domains
  FOR EACH ROW EXECUTE FUNCTION sync_domain_budget();
CREATE TRIGGER clients_budgets
  AFTER INSERT OR UPDATE OF daily_send_limit, limit_window, time_zone, bulk_reserve_percent, deleted_at ON clients
  FOR EACH ROW EXECUTE FUNCTION sync_client_budgets();
CREATE TRIGGER google_workspace_quota_budgets
  AFTER INSERT OR DELETE OR UPDATE OF daily_limit, hourly_limit, limit_window, time_zone, bulk_reserve_percent
  ON google_workspace_quota FOR EACH ROW EXECUTE FUNCTION sync_quota_budgets();

SELECT relayd_sync_lanes(ARRAY(SELECT id FROM email_mailboxes ORDER BY id));
ALTER TABLE mailbox_lanes ALTER COLUMN client_id SET NOT NULL;
CREATE INDEX mailbox_lanes_client ON mailbox_lanes (upstream_id, client_id, runnable_at) WHERE NOT held;
UPDATE email_domains SET daily_send_limit = relayd_domain_limit(id);

-- Every budget as it stands at this instant. A calendar window that has turned holds what is in flight.
CREATE VIEW budget_usage AS
SELECT b.id AS budget_id, b.kind, b.client_id, b.owner_id, b.is_rolling, b.span, b.time_zone, b.unit_limit, b.bulk_limit,
       (CASE WHEN b.is_rolling THEN b.units_used - COALESCE(freed.units, 0)
             WHEN b.turns_at > clock.now AND b.began_at <= clock.now THEN b.units_used
             WHEN b.turns_at > clock.now THEN b.units_used + b.units_before
             ELSE COALESCE(flying.units, 0) END)::integer AS used,
       CASE WHEN b.is_rolling THEN freed.next_at
            WHEN b.turns_at > clock.now THEN b.turns_at
            ELSE relayd_window_end(clock.now, b.span, b.time_zone) END AS turns_at
  FROM (SELECT relayd_now() AS now) clock
  CROSS JOIN budgets b
  LEFT JOIN (SELECT budget_id, count(*) AS units FROM email_queue, unnest(reserved_budgets) AS budget_id
              WHERE status = 'sending' GROUP BY 1) flying ON flying.budget_id = b.id
  LEFT JOIN LATERAL (
    SELECT COALESCE(sum(r.units) FILTER (WHERE r.frees_at > b.began_at AND r.frees_at <= clock.now), 0)
           - COALESCE(sum(r.units) FILTER (WHERE r.frees_at > clock.now AND r.frees_at <= b.began_at), 0) AS units,
           min(r.frees_at) FILTER (WHERE r.frees_at > clock.now) AS next_at
      FROM budget_releases r WHERE r.budget_id = b.id AND b.is_rolling) freed ON b.is_rolling;

DROP VIEW email_mailbox_usage;
CREATE VIEW email_mailbox_usage AS
SELECT m.id AS mailbox_id, m.client_id, m.email_address, m.daily_send_limit, m.time_zone, u.used,
       CASE WHEN u.used > 0 OR NOT u.is_rolling THEN u.turns_at END AS window_ends_at
  FROM email_mailboxes m JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day'
 WHERE m.deleted_at IS NULL;

-- As before, and what else an operator may now say.
DROP TRIGGER email_mailboxes_updated_at ON email_mailboxes;
CREATE TRIGGER email_mailboxes_updated_at
  BEFORE UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                   daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                   warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                   warmup_note, limit_window, is_paced, mail_class ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_mailboxes_audit_trigger ON email_mailboxes;
CREATE TRIGGER email_mailboxes_audit_trigger
  AFTER INSERT OR DELETE
     OR UPDATE OF client_id, domain_id, upstream_id, email_address, display_name, status, status_reason,
                  daily_send_limit, time_zone, deleted_at, daily_limit_cap, warmup_enabled, warmup_started_at,
                  warmup_paused_at, warmup_completed_at, warmup_stage, warmup_schedule, warmup_used_days_only,
                  warmup_note, limit_window, is_paced, mail_class ON email_mailboxes
  FOR EACH ROW EXECUTE FUNCTION relayd_audit(
    'email_address', 'current_daily_sends,window_ends_at,bounce_rate,spam_rate,reply_rate', '');
-- A domain's limit in force follows its mailboxes'; what an operator says is own_daily_limit.
DROP TRIGGER email_domains_updated_at ON email_domains;
CREATE TRIGGER email_domains_updated_at
  BEFORE UPDATE OF client_id, domain, provider, default_mailbox_id, status, deleted_at, own_daily_limit, limit_window,
                   time_zone ON email_domains
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER email_domains_audit_trigger ON email_domains;
CREATE TRIGGER email_domains_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON email_domains
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('domain', 'daily_send_limit,current_daily_sends', '');
DROP TRIGGER clients_updated_at ON clients;
CREATE TRIGGER clients_updated_at
  BEFORE UPDATE OF name, tier, status, may_send_bounces, deleted_at, daily_send_limit, limit_window, time_zone,
                   bulk_reserve_percent ON clients
  FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();
DROP TRIGGER clients_audit_trigger ON clients;
CREATE TRIGGER clients_audit_trigger AFTER INSERT OR UPDATE OR DELETE ON clients
  FOR EACH ROW EXECUTE FUNCTION relayd_audit('name', 'current_daily_sends', '');
