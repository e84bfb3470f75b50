CREATE OR REPLACE FUNCTION relayd_default_quotas(of_mailbox uuid, of_upstreams uuid[]) RETURNS void LANGUAGE sql AS $$
  INSERT INTO google_workspace_quota (client_id, upstream_id, mailbox_id, daily_limit)
  SELECT m.client_id, u.id, m.id, 2000
    FROM email_mailboxes m, email_configurations u
   WHERE m.id = of_mailbox AND m.deleted_at IS NULL
     AND u.id = ANY(of_upstreams) AND u.provider_type = 'google_workspace'
     AND NOT EXISTS (SELECT FROM google_workspace_quota g WHERE g.upstream_id = u.id AND g.mailbox_id = m.id)
   ORDER BY u.id
$$;

CREATE OR REPLACE FUNCTION relayd_lane(of_mailbox uuid, of_class text, of_route uuid, of_share uuid) RETURNS bigint
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
