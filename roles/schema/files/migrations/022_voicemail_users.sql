-- Mailboxes (Asterisk realtime, family voicemail). Asterisk itself changes the password, so it is a table.
CREATE TABLE IF NOT EXISTS voicemail_users (
  uniqueid INT UNSIGNED NOT NULL AUTO_INCREMENT,
  context VARCHAR(80) NOT NULL,
  mailbox VARCHAR(80) NOT NULL,
  password VARCHAR(80) NOT NULL,
  fullname VARCHAR(80) NOT NULL DEFAULT '',
  email VARCHAR(190) NOT NULL DEFAULT '',
  attach ENUM('yes', 'no') NOT NULL DEFAULT 'no',
  language VARCHAR(20) NOT NULL DEFAULT '',
  maxmsg SMALLINT UNSIGNED NOT NULL DEFAULT 100,
  managed_by VARCHAR(32) NOT NULL DEFAULT '',
  PRIMARY KEY (uniqueid),
  UNIQUE KEY mailbox_in_context (context, mailbox)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
