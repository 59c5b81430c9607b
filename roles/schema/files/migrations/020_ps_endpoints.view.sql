-- What Asterisk knows of each subscriber (PJSIP realtime, object type endpoint). Derived: subscribers are the truth.
-- The contact leads back through the edge (settings: edge_sip_uri). Asterisk's ODBC driver cuts values at semicolons,
-- which it reads as ^3B instead. Session timers end at the edge, which answers for the relay; each is
-- renewed after half its time.
CREATE OR REPLACE SQL SECURITY DEFINER VIEW ps_endpoints AS
SELECT
  CONCAT(s.tenant, '-', s.extension) AS id,
  CONCAT(s.tenant, '-', s.extension) AS aors,
  'from-edge' AS context,
  'transport-udp' AS transport,
  'username' AS identify_by,
  '!all,alaw,ulaw,g722' AS allow,
  'rfc4733' AS dtmf_mode,
  REPLACE(REPLACE((SELECT e.value FROM settings AS e WHERE e.name = 'edge_sip_uri'), '^', '^5E'), ';', '^3B')
    AS outbound_proxy,
  t.domain AS from_domain,
  CONCAT(
    '"',
    REPLACE(REPLACE(REPLACE(REPLACE(s.display_name, '"', ''), CHR(92), ''), '^', '^5E'), ';', '^3B'),
    '" <', s.extension, '>'
  ) AS callerid,
  s.tenant AS accountcode,
  'yes' AS direct_media,
  'no' AS disable_direct_media_on_nat,
  'none' AS direct_media_glare_mitigation,
  'no' AS rtp_symmetric,
  'no' AS force_rport,
  'no' AS rewrite_contact,
  'always' AS timers,
  '180' AS timers_sess_expires,
  'no' AS send_connected_line,
  'no' AS trust_id_inbound,
  'no' AS allow_subscribe
FROM subscribers AS s
INNER JOIN tenants AS t ON t.name = s.tenant
