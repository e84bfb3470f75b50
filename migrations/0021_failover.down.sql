DROP FUNCTION relayd_next_upstream(bigint, uuid);
DROP FUNCTION relayd_ways(bigint[]);

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
CREATE OR REPLACE FUNCTION relayd_steered(lane_ids bigint[])
RETURNS TABLE (lane_id bigint, preferred_id uuid, upstream_id uuid) LANGUAGE sql STABLE AS $$
  SELECT w.lane_id, (array_agg(w.upstream_id ORDER BY w.place))[1],
         COALESCE((array_agg(w.upstream_id ORDER BY w.place)
                     FILTER (WHERE w.is_usable AND (w.place = 1 OR w.is_allowed)))[1],
                  (array_agg(w.upstream_id ORDER BY w.place))[1])
    FROM relayd_ways(lane_ids) w GROUP BY w.lane_id
$$;

-- What failed over goes home, where the former version looks for it.
UPDATE email_queue q SET lane_id = home.id
  FROM mailbox_lanes l
  JOIN mailbox_lanes home ON home.mailbox_id = l.mailbox_id AND home.class = l.class
   AND home.route_id IS NOT DISTINCT FROM l.route_id AND home.share_id IS NULL
 WHERE q.lane_id = l.id AND l.share_id IS NOT NULL AND q.status IN ('pending', 'queued', 'sending')
   AND NOT EXISTS (SELECT FROM mailbox_upstreams x
                    WHERE l.route_id IS NULL AND x.mailbox_id = l.mailbox_id AND x.upstream_id = l.share_id
                      AND x.weight IS NOT NULL)
   AND NOT EXISTS (SELECT FROM mail_route_upstreams x
                    WHERE x.route_id = l.route_id AND x.upstream_id = l.share_id AND x.weight IS NOT NULL);
SELECT relayd_refresh_lanes(ARRAY(SELECT id FROM mailbox_lanes WHERE share_id IS NOT NULL ORDER BY id));

ALTER TABLE upstream_breakers
  DROP COLUMN consecutive_failures, DROP COLUMN last_failure, DROP COLUMN last_failed_at;
