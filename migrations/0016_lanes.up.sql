-- A lane that is made while its mailbox, domain, client, route or upstream is being changed follows the change.

-- The lane of that mailbox, class, route and share, made where there is none yet.
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
  -- In the order of everybody's locks. Who changes one of these just now does not know of this lane yet: it is made
  -- after that, as that has left them. Who comes later finds it.
  PERFORM FROM mail_routes WHERE id = of_route FOR SHARE;
  PERFORM FROM email_mailboxes WHERE id = of_mailbox FOR SHARE;
  PERFORM FROM email_domains WHERE id = (SELECT domain_id FROM email_mailboxes WHERE id = of_mailbox) FOR SHARE;
  PERFORM FROM clients WHERE id = (SELECT client_id FROM email_mailboxes WHERE id = of_mailbox) FOR SHARE;
  PERFORM FROM email_configurations u
    WHERE u.id IN (SELECT upstream_id FROM email_mailboxes WHERE id = of_mailbox UNION
                   SELECT upstream_id FROM mailbox_upstreams WHERE mailbox_id = of_mailbox UNION
                   SELECT upstream_id FROM mail_route_upstreams WHERE route_id = of_route)
    ORDER BY u.id FOR SHARE OF u;
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
