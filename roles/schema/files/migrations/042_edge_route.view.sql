-- What the edge knows of what can be dialled. Inside a tenant: tenant:dialled -> kind:target, where
-- a phone goes before a service of the same name. From everywhere: :number -> tenant:kind:target.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW edge_route AS
SELECT CONCAT(s.tenant, ':', s.extension) AS key_name, CONCAT('extension:', s.extension) AS key_value
FROM subscribers AS s
UNION ALL
SELECT CONCAT(v.tenant, ':', v.dialled), CONCAT(v.kind, ':')
FROM services AS v
WHERE NOT EXISTS (
  SELECT 1 FROM subscribers AS o WHERE o.tenant = v.tenant AND o.extension = v.dialled
)
UNION ALL
SELECT CONCAT(':', n.number), CONCAT(n.tenant, ':extension:', n.extension)
FROM numbers AS n
