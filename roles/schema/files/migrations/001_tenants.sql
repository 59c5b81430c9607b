-- Who has phones here. The domain is also the digest realm.
CREATE TABLE IF NOT EXISTS tenants (
  name VARCHAR(32) NOT NULL,
  domain VARCHAR(190) NOT NULL,
  managed_by VARCHAR(32) NOT NULL,
  PRIMARY KEY (name),
  UNIQUE KEY tenants_domain (domain)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
