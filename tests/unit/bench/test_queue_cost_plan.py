"""What is summed from a plan."""

from bench.queue_cost import plan

PLAN = [
    {
        "Execution Time": 1.5,
        "Plan": {
            "Node Type": "Nested Loop",
            "Actual Rows": 6,
            "Actual Loops": 1,
            "Shared Hit Blocks": 40,
            "Shared Read Blocks": 2,
            "Plans": [
                {
                    "Node Type": "Index Scan",
                    "Index Name": "email_queue_due",
                    "Relation Name": "email_queue",
                    "Actual Rows": 2,
                    "Actual Loops": 3,
                    "Rows Removed by Filter": 4,
                    "Shared Hit Blocks": 30,
                },
                {"Node Type": "CTE Scan", "Actual Rows": 9, "Actual Loops": 1},
                {"Node Type": "ModifyTable", "Relation Name": "email_queue", "Actual Rows": 6, "Actual Loops": 1},
            ],
        },
    }
]


def test_rows_are_those_that_scans_of_tables_read_in_all_loops_filtered_ones_too():
    assert plan.summed(PLAN)["rows_read"] == (2 + 4) * 3


def test_buffers_are_those_of_the_whole_plan_whether_found_or_read():
    found = plan.summed(PLAN)
    assert found["buffers"] == 42
    assert found["scans"] == [{"node": "Index Scan", "on": "email_queue_due", "loops": 3, "rows": 18, "buffers": 30}]
