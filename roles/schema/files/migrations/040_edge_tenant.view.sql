-- What the edge knows of tenants: domain -> name.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW edge_tenant AS
SELECT t.domain AS key_name, t.name AS key_value
FROM tenants AS t
