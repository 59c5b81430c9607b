-- One row per call record; columns as cdr_odbc names them. Times are UTC. accountcode is the caller's tenant,
-- peeraccount the callee's, userfield the Call-ID of the caller's leg. uniqueid starts with the name of the node, so
-- the key is unique over all nodes, and a record can be written twice without harm.
CREATE TABLE IF NOT EXISTS cdr (
  uniqueid VARCHAR(150) CHARACTER SET ascii NOT NULL,
  sequence INT NOT NULL,
  calldate DATETIME NOT NULL,
  clid VARCHAR(256) NOT NULL DEFAULT '',
  src VARCHAR(80) NOT NULL DEFAULT '',
  dst VARCHAR(80) NOT NULL DEFAULT '',
  dcontext VARCHAR(80) NOT NULL DEFAULT '',
  channel VARCHAR(80) NOT NULL DEFAULT '',
  dstchannel VARCHAR(80) NOT NULL DEFAULT '',
  lastapp VARCHAR(80) NOT NULL DEFAULT '',
  lastdata VARCHAR(256) NOT NULL DEFAULT '',
  duration INT NOT NULL DEFAULT 0,
  billsec INT NOT NULL DEFAULT 0,
  disposition VARCHAR(45) NOT NULL DEFAULT '',
  amaflags INT NOT NULL DEFAULT 0,
  accountcode VARCHAR(80) NOT NULL DEFAULT '',
  peeraccount VARCHAR(80) NOT NULL DEFAULT '',
  linkedid VARCHAR(150) CHARACTER SET ascii NOT NULL DEFAULT '',
  userfield VARCHAR(256) NOT NULL DEFAULT '',
  PRIMARY KEY (uniqueid, sequence),
  KEY by_date (calldate),
  KEY by_tenant (accountcode, calldate),
  KEY by_call_id (userfield)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
