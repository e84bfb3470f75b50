DROP TABLE relayd_nodes;
