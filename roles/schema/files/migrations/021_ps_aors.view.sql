-- Where Asterisk reaches each subscriber (PJSIP realtime, object type aor): at the edge, which knows the phones.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW ps_aors AS
SELECT
  CONCAT(s.tenant, '-', s.extension) AS id,
  CONCAT('sip:', s.extension, '@', t.domain) AS contact,
  '0' AS max_contacts,
  '0' AS qualify_frequency
FROM subscribers AS s
INNER JOIN tenants AS t ON t.name = s.tenant
