-- A message that its upstream fails goes on through the next one at once, and failures count however far apart they are.

ALTER TABLE upstream_breakers
  ADD COLUMN consecutive_failures integer NOT NULL DEFAULT 0 CHECK (consecutive_failures >= 0),
  ADD COLUMN last_failure   text CHECK (length(last_failure) <= 1000),
  ADD COLUMN last_failed_at timestamptz,
  ADD CHECK ((last_failure IS NULL) = (last_failed_at IS NULL));

-- Each lane's upstreams in the order in which it would use them. A share of a list in order is the lane of entries that
-- failed over to that upstream. `is_own`: the operator chose this upstream for the lane, so DNS need not vouch for it.
-- A route that is gone leaves its lanes to the mailbox's list, so that nothing that waits in them is stranded.
DROP FUNCTION relayd_ways(bigint[]);
CREATE FUNCTION relayd_ways(lane_ids bigint[])
RETURNS TABLE (lane_id bigint, upstream_id uuid, place bigint, is_usable boolean, is_allowed boolean,
               list_position integer, is_own boolean)
LANGUAGE sql STABLE AS $$
  SELECT x.id, x.upstream_id,
         row_number() OVER (PARTITION BY x.id ORDER BY x.is_share DESC, x.position),
         x.is_usable, x.may_misalign OR x.is_aligned OR x.is_own, x.position, x.is_own
    FROM (
      SELECT l.id, w.upstream_id, w.position, w.may_misalign,
             COALESCE(w.upstream_id = l.share_id, false) AS is_share,
             COALESCE(a.is_aligned, false) AS is_aligned,
             u.is_active AND u.deleted_at IS NULL AND COALESCE(k.state, 'closed') = 'closed' AS is_usable,
             CASE WHEN bool_or(w.weight IS NOT NULL AND w.upstream_id = l.share_id) OVER (PARTITION BY l.id)
               THEN w.upstream_id = l.share_id
               ELSE w.position = min(w.position) OVER (PARTITION BY l.id) END AS is_own
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
       WHERE l.id = ANY(lane_ids)) x
$$;

-- Where each lane's mail goes now: its first upstream that works and may take its mail; where there is none, the one that
-- the operator chose, and the mail waits.
CREATE OR REPLACE FUNCTION relayd_steered(lane_ids bigint[])
RETURNS TABLE (lane_id bigint, preferred_id uuid, upstream_id uuid) LANGUAGE sql STABLE AS $$
  SELECT w.lane_id, (array_agg(w.upstream_id ORDER BY w.place))[1],
         COALESCE((array_agg(w.upstream_id ORDER BY w.place) FILTER (WHERE w.is_usable AND w.is_allowed))[1],
                  (array_agg(w.upstream_id ORDER BY w.is_own DESC, w.place))[1])
    FROM relayd_ways(lane_ids) w GROUP BY w.lane_id
$$;

-- The upstream after the one that failed, in the order of the list and round to its beginning, that works and may take
-- the lane's mail; no row if there is none. `next_share`: the share of the lane for it. `is_round`: all have been tried.
CREATE FUNCTION relayd_next_upstream(of_lane bigint, failed uuid)
RETURNS TABLE (next_id uuid, next_share uuid, is_round boolean) LANGUAGE sql STABLE AS $$
  SELECT w.upstream_id,
         CASE WHEN w.list_position > (SELECT min(list_position) FROM relayd_ways(ARRAY[of_lane])) THEN w.upstream_id END,
         w.list_position < f.list_position
    FROM relayd_ways(ARRAY[of_lane]) f
    JOIN relayd_ways(ARRAY[of_lane]) w ON w.upstream_id <> f.upstream_id
   WHERE f.upstream_id = failed AND w.is_usable AND w.is_allowed
   ORDER BY w.list_position < f.list_position, w.list_position LIMIT 1
$$;
