-- Public numbers (E.164 without the plus sign) and the extension each rings.
CREATE TABLE IF NOT EXISTS numbers (
  number VARCHAR(32) NOT NULL,
  tenant VARCHAR(32) NOT NULL,
  extension VARCHAR(32) NOT NULL,
  managed_by VARCHAR(32) NOT NULL,
  PRIMARY KEY (number),
  KEY numbers_extension (tenant, extension)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
