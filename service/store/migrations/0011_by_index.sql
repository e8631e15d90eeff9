-- migrate:up
-- Pages of sessions are found by an index, and then looked at: the view is computed for what is shown alone.

CREATE INDEX session_state ON zap.session (state, session_id);

-- Ids of the next `most` sessions after one. A state is what callers see; only what is CONNECTED can be seen as another one.
-- Planned anew for each call's filters: a plan for any of them reads all sessions.
CREATE FUNCTION zap.page_of_sessions(after text, of_user text, in_states text[], with_labels jsonb, most integer)
RETURNS SETOF text LANGUAGE plpgsql STABLE ROWS 100 SET plan_cache_mode = force_custom_plan AS $$
BEGIN
    RETURN QUERY
    SELECT s.session_id FROM zap.session s
    WHERE
        s.session_id > after
        AND (of_user = '' OR s.user_id = of_user)
        AND (with_labels = '{}' OR s.labels @> with_labels)
        AND (
            cardinality(in_states) = 0
            OR s.state = any(CASE
                WHEN 'RECONNECTING' = any(in_states) THEN array_append(in_states, 'CONNECTED') ELSE in_states
            END)
            AND (s.state <> 'CONNECTED' OR (
                SELECT seen.state FROM zap.session_now seen WHERE seen.session_id = s.session_id
            ) = any(in_states))
        )
    ORDER BY s.session_id
    LIMIT most;
END
$$;

-- migrate:down
DROP FUNCTION zap.page_of_sessions;
DROP INDEX zap.session_state;
