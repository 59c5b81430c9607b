-- Call records in words. The node is what stands before the last hyphen of uniqueid.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW call_records AS
SELECT
  calldate AS started,
  accountcode AS tenant,
  src AS caller,
  peeraccount AS called_tenant,
  dst AS called,
  disposition,
  duration AS seconds,
  billsec AS seconds_answered,
  REGEXP_REPLACE(uniqueid, '-[^-]*$', '') AS node,
  userfield AS call_id,
  uniqueid,
  sequence
FROM cdr
