DROP TRIGGER email_configurations_ways ON email_configurations;
DROP FUNCTION sync_upstream_ways();

-- Every mailbox has its home lanes alone again, at its first upstream; what waited elsewhere waits there.
UPDATE email_queue q SET lane_id = home.id
  FROM mailbox_lanes l JOIN mailbox_lanes home ON home.mailbox_id = l.mailbox_id AND home.class = l.class AND home.is_home
 WHERE q.lane_id = l.id AND NOT l.is_home;
DELETE FROM mailbox_lanes WHERE NOT is_home;
UPDATE mailbox_lanes SET due_at = LEAST(due_at, relayd_now());
DROP INDEX mailbox_lanes_route, mailbox_lanes_away;
ALTER TABLE mailbox_lanes
  DROP CONSTRAINT mailbox_lanes_mailbox_id_class_key,
  DROP COLUMN is_home, DROP COLUMN route_id, DROP COLUMN share_id, DROP COLUMN preferred_id,
  ADD CONSTRAINT mailbox_lanes_mailbox_id_class_key UNIQUE (mailbox_id, class);
DROP INDEX email_queue_upstream_failed;
ALTER TABLE email_queue DROP COLUMN upstream_failed;
ALTER TABLE relayd_state DROP COLUMN routes_changed_at, DROP COLUMN rerouted_at;

CREATE OR REPLACE FUNCTION relayd_sync_lanes(mailboxes uuid[]) RETURNS void LANGUAGE plpgsql AS $$
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
CREATE OR REPLACE FUNCTION relayd_used_by(of_domain uuid, of_client uuid, of_upstream uuid, of_mailbox uuid) RETURNS integer
LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN (
    SELECT COALESCE(sum(u.used), 0)::integer
      FROM email_mailboxes m JOIN budget_usage u ON u.owner_id = m.id AND u.kind = 'mailbox_day'
     WHERE m.domain_id = of_domain OR m.client_id = of_client OR m.upstream_id = of_upstream OR m.id = of_mailbox);
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
       OR b.owner_id IN (SELECT id FROM email_mailboxes m
                          WHERE m.domain_id = of_domain OR m.upstream_id = of_upstream OR m.id = of_mailbox)
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
    SELECT id FROM email_mailboxes
     WHERE upstream_id = quota.upstream_id AND (quota.mailbox_id IS NULL OR id = quota.mailbox_id) ORDER BY id));
  RETURN NULL;
END
$$;

SELECT relayd_sync_lanes(ARRAY(SELECT id FROM email_mailboxes ORDER BY id));

DROP FUNCTION relayd_lane(uuid, text, uuid, uuid), relayd_default_quotas(uuid, uuid[]), relayd_steer_lanes(bigint[]),
              relayd_lanes_of_upstream(uuid), relayd_refresh_lanes(bigint[]), relayd_budgets_of(uuid, text, uuid),
              relayd_steered(bigint[]), relayd_ways(bigint[]), relayd_senders_through(uuid);
DROP TABLE mailbox_upstreams, mail_route_upstreams, mail_routes, upstream_breakers, upstream_alignments;
ALTER TABLE email_configurations DROP COLUMN spf_include;
