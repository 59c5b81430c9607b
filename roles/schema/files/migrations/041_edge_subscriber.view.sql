-- What the edge knows of phones: extension@domain -> HA1, to answer digest authentication.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW edge_subscriber AS
SELECT CONCAT(s.extension, '@', t.domain) AS key_name, s.ha1 AS key_value
FROM subscribers AS s
INNER JOIN tenants AS t ON t.name = s.tenant
