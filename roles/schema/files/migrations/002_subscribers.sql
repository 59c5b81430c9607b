-- Phones. ha1 is md5(extension:domain:password): enough for digest authentication, and all that
-- is kept of a password.
CREATE TABLE IF NOT EXISTS subscribers (
  tenant VARCHAR(32) NOT NULL,
  extension VARCHAR(32) NOT NULL,
  display_name VARCHAR(80) NOT NULL DEFAULT '',
  ha1 CHAR(32) NOT NULL,
  managed_by VARCHAR(32) NOT NULL,
  PRIMARY KEY (tenant, extension)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
