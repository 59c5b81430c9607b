-- What a tenant's phones dial to reach a service instead of a phone.
CREATE TABLE IF NOT EXISTS services (
  tenant VARCHAR(32) NOT NULL,
  dialled VARCHAR(32) NOT NULL,
  kind VARCHAR(32) NOT NULL,
  managed_by VARCHAR(32) NOT NULL,
  PRIMARY KEY (tenant, dialled)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
